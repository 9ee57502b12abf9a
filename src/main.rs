// SPDX-License-Identifier: Apache-2.0
//! Parse, dispatch, exit code. 0 done, 1 failed, 2 usage or configuration.

mod cli;

use clap::Parser;
use std::process::ExitCode;

/// Every allocation of the real binary is counted by thread: that is how "the control loop never allocates" is shown.
#[global_allocator]
static ALLOCATOR: tendon::runtime::realtime::CountingAllocator =
    tendon::runtime::realtime::CountingAllocator;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::log::start(arguments.verbose);
    let outcome = match arguments.verb {
        cli::Verb::Demo(options) => cli::demo::run(&options),
        cli::Verb::Run(options) => cli::run::run(&options),
        cli::Verb::BenchRobot(options) => cli::bench_robot::run(&options),
        cli::Verb::Check(options) => cli::check::run(&options),
        cli::Verb::Cameras(options) => cli::cameras::run(&options),
        cli::Verb::Engine(verb) => cli::engine::run(&verb),
        cli::Verb::SchedSim(options) => cli::sched_sim::run(&options),
        cli::Verb::FaultSim(options) => cli::fault_sim::run(&options),
        cli::Verb::Doctor(options) => cli::doctor::run(&options),
        cli::Verb::InferenceProcess(options) => cli::inference_process::run(&options),
        cli::Verb::Instruct(options) => cli::instruct::run(&options),
        cli::Verb::Mode(options) => cli::mode::run(&options),
        cli::Verb::Speed(options) => cli::speed::run(&options),
        cli::Verb::Park(options) => cli::park::run(&options),
        cli::Verb::Deadman(options) => cli::deadman::run(&options),
        cli::Verb::Events(options) => cli::events::run(&options),
        cli::Verb::RtBench(options) => cli::rt_bench::run(&options),
        cli::Verb::Policy(verb) => cli::policy::run(&verb),
    };
    cli::log::end();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cli::Failure::Usage(text)) => {
            eprintln!("tendon: {text}");
            ExitCode::from(2)
        }
        Err(cli::Failure::Failed(text)) => {
            eprintln!("tendon: {text}");
            ExitCode::FAILURE
        }
    }
}
