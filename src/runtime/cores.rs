// SPDX-License-Identifier: Apache-2.0
//! Cores, as the kernel lists them: which it has, and which it keeps free of everything that was not sent there.

use crate::runtime::health::Tree;

/// Threads whose lateness moves the robot: a core that they share makes them wait. The others may share theirs.
const MOVING: [&str; 5] = ["lines", "control", "governor", "egress", "watchdog"];
/// More than the kernel can have; bounds what a list may ask for.
const CORES_MAX: usize = 8192;
const FOLDER: &str = "/sys/devices/system/cpu";

/// The cores of a list such as `0-3,6`, ascending as it is.
#[must_use]
pub fn of_list(list: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in list.split([',', ' ']).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend((first..=last).take(CORES_MAX));
        }
    }
    cores
}

/// What the kernel says of `which`: `online`, `isolated`, `nohz_full`. None, where it does not say.
#[must_use]
pub fn of_machine(tree: &Tree, which: &str) -> Vec<usize> {
    of_list(&tree.read(&format!("{FOLDER}/{which}")).unwrap_or_default())
}

/// For people: `2, 3`.
#[must_use]
pub fn words(cores: &[usize]) -> String {
    let words: Vec<String> = cores.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// Of the threads that were `asked` for with their cores, those that move the robot and whose cores the kernel does not
/// isolate: in words, with what to do; `None` if there are none. The kernel granted the cores; that everything else runs
/// there too is what no thread can read back.
#[must_use]
pub fn shared<'a>(
    asked: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    tree: &Tree,
) -> Option<String> {
    let mut isolated = of_machine(tree, "isolated");
    // Isolated at run time: by a partition of control groups.
    let partitions = tree.read("/sys/fs/cgroup/cpuset.cpus.isolated");
    isolated.extend(of_list(&partitions.unwrap_or_default()));
    let mut all = Vec::new();
    let mut threads = Vec::new();
    for (name, cores) in asked {
        if !MOVING.contains(&name) {
            continue;
        }
        let shared: Vec<usize> = cores
            .iter()
            .filter(|core| !isolated.contains(core))
            .copied()
            .collect();
        if !shared.is_empty() {
            threads.push(format!("{name} {}", words(&shared)));
            all.extend(shared);
        }
    }
    all.sort_unstable();
    all.dedup();
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>();
    (!all.is_empty()).then(|| {
        format!(
            "realtime.cores: {} share their cores with everything else, as the kernel isolates {}: append \
             isolcpus=managed_irq,domain,{list} nohz_full={list} rcu_nocbs={list} to the kernel's command line",
            threads.join(", "),
            if isolated.is_empty() {
                "none".to_owned()
            } else {
                words(&isolated)
            },
            list = list.join(","),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for (list, cores) in [
            ("", vec![]),
            ("0", vec![0]),
            ("0-3,6", vec![0, 1, 2, 3, 6]),
            ("0 2-3", vec![0, 2, 3]),
            ("x,1-,-2,5-4,7", vec![7]),
        ] {
            assert_eq!(of_list(list), cores, "{list:?}");
        }
        assert_eq!(of_list("0-18446744073709551615").len(), CORES_MAX);
    }

    #[test]
    fn what_moves_the_robot_is_told_when_its_core_is_shared() {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree::at(folder.path());
        let cpu = tree.path(FOLDER);
        fs::create_dir_all(&cpu).expect("a folder");
        let isolated = |list: &str| fs::write(cpu.join("isolated"), list).expect("a file");
        let pinned: [(&str, &[usize]); 3] =
            [("control", &[2]), ("governor", &[3]), ("inference", &[0])];
        let told = shared(pinned, &tree).expect("nothing is isolated");
        assert!(
            told.contains("control 2, governor 3 share") && told.contains("isolates none"),
            "{told}"
        );
        assert!(told.contains("isolcpus=managed_irq,domain,2,3 "), "{told}");
        isolated("3\n");
        let told = shared(pinned, &tree).expect("one is not");
        assert!(
            told.contains("control 2 share") && told.contains("isolates 3"),
            "{told}"
        );
        isolated("2-3\n");
        assert_eq!(shared(pinned, &tree), None, "inference may share its own");
        let partitions = tree.path("/sys/fs/cgroup");
        fs::create_dir_all(&partitions).expect("a folder");
        isolated("3\n");
        fs::write(partitions.join("cpuset.cpus.isolated"), "2\n").expect("a file");
        assert_eq!(shared(pinned, &tree), None, "one by each way");
        fs::write(partitions.join("cpuset.cpus.isolated"), "\n").expect("a file");
        isolated("");
        let capture: [(&str, &[usize]); 1] = [("capture", &[1])];
        assert_eq!(shared(capture, &tree), None, "none of those that move it");
    }
}
