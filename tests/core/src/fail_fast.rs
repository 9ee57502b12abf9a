// SPDX-License-Identifier: Apache-2.0
//! Where the tests themselves are tested, the first failure is all that is asked for: the process ends there.

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn exit_at_the_first_panic() {
        if std::env::var_os("TENDON_SHORT_TESTS").is_some() {
            std::panic::set_hook(Box::new(|_| std::process::exit(101)));
        }
    }
    exit_at_the_first_panic
};
