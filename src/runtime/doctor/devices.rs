// SPDX-License-Identifier: Apache-2.0
//! GPU nodes and libraries, cameras, serial buses, GPIO lines: what is there, and may this user use it?
//!
//! No driver is asked but V4L2, for the modes of its cameras (feature `v4l`). CUDA's two unhelpful answers on a Jetson have causes that can be seen in `/dev`: 999 when
//! `/dev/nvmap` may not be opened (not in its group), 801 when the GPU's render node is missing or may not be opened.

use super::machine::is_tegra;
use super::{Finding, Verdict};
use crate::runtime::health::Tree;
use std::os::unix::fs::MetadataExt;

/// Looks at everything of this file.
#[must_use]
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let who = Who::read(tree);
    let mut findings = Vec::new();
    if is_tegra(tree) {
        findings.push(nvmap(tree, &who));
        findings.push(render_node(tree, &who));
    }
    findings.extend([
        library(tree, "CUDA driver", "libcuda.so"),
        library(tree, "CUDA runtime", "libcudart.so"),
        library(tree, "TensorRT", "libnvinfer.so"),
        onnxruntime(tree),
        cameras(tree, &who),
        nodes(tree, &who, "serial buses", "/dev", &["ttyUSB", "ttyACM"]),
        nodes(tree, &who, "GPIO lines", "/dev", &["gpiochip"]),
    ]);
    findings
}

/// One of a Python package, or one that is named, is found when an engine is loaded.
fn onnxruntime(tree: &Tree) -> Finding {
    const CHECK: &str = "ONNX Runtime";
    let found = library(tree, CHECK, "libonnxruntime.so");
    if found.verdict == Verdict::Good {
        return found;
    }
    let elsewhere = "no libonnxruntime.so.* where the linker looks; `policy.engine` may still find one: docs/engines.md";
    Finding::absent(CHECK, elsewhere)
}

/// Permission bits of one class.
const READ: u32 = 0o4;
pub(super) const READ_WRITE: u32 = 0o6;

/// Who is asking: as the kernel sees this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub uid: u32,
    pub gids: Vec<u32>,
}

impl Who {
    /// From `/proc/self/status`; nobody, if that cannot be read.
    pub(super) fn read(tree: &Tree) -> Who {
        let status = tree.read("/proc/self/status").unwrap_or_default();
        let numbers = |key: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let words = line.unwrap_or_default().split_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        };
        // "Uid: real effective saved file"
        let mut gids = numbers("Groups:");
        gids.extend(numbers("Gid:").get(1));
        let uid = numbers("Uid:").get(1).copied().unwrap_or(u32::MAX);
        Who { uid, gids }
    }

    /// Whether the permission bits let `self` do what `needs` says. Access lists (`setfacl`, systemd's uaccess) are not seen.
    pub(super) fn may_use(&self, needs: u32, mode: u32, owner: u32, group: u32) -> bool {
        let granted = if self.uid == 0 {
            READ_WRITE
        } else if self.uid == owner {
            mode >> 6
        } else if self.gids.contains(&group) {
            mode >> 3
        } else {
            mode
        };
        granted & needs == needs
    }
}

/// Why a node cannot be read and written; `None` if it can.
pub(super) fn barred(tree: &Tree, who: &Who, node: &str) -> Option<String> {
    barred_to(tree, who, node, READ_WRITE)
}

fn barred_to(tree: &Tree, who: &Who, node: &str, needs: u32) -> Option<String> {
    let Ok(about) = std::fs::metadata(tree.path(node)) else {
        return Some(format!("{node} is not there"));
    };
    if who.may_use(needs, about.mode(), about.uid(), about.gid()) {
        return None;
    }
    let group = group_name(tree, about.gid());
    Some(format!(
        "{node} ({:o}, group {group}) may not be read{} by user {}",
        about.mode() & 0o777,
        if needs == READ_WRITE {
            " and written"
        } else {
            ""
        },
        who.uid
    ))
}

fn group_name(tree: &Tree, gid: u32) -> String {
    let groups = tree.read("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}

fn nvmap(tree: &Tree, who: &Who) -> Finding {
    const CHECK: &str = "GPU memory node";
    // 0440 on some releases, 0660 on others: to be read is enough.
    match barred_to(tree, who, "/dev/nvmap", READ) {
        None => Finding::good(CHECK, "/dev/nvmap"),
        Some(why) => Finding::warning(
            CHECK,
            format!(
                "{why}: CUDA would say cuInit 999, \"NvRmMemInitNvmap failed: Permission denied\""
            ),
            "usermod -aG video,render tendon, then start the service (or log in) again; in a container: --runtime nvidia",
        ),
    }
}

fn render_node(tree: &Tree, who: &Who) -> Finding {
    const CHECK: &str = "GPU render node";
    let nodes = tree.with_prefix("/dev/dri", "renderD");
    if nodes.is_empty() {
        return Finding::warning(
            CHECK,
            "no /dev/dri/renderD*: on JetPack 6 CUDA would say cuInit 801, operation not supported",
            "load the display driver (modprobe nvidia-drm modeset=1, or tegra-drm); in a unit: DeviceAllow=char-drm rw; in a container: --device /dev/dri",
        );
    }
    match nodes.iter().find_map(|node| barred(tree, who, node)) {
        None => Finding::good(CHECK, nodes.join(", ")),
        Some(why) => Finding::warning(
            CHECK,
            format!("{why}: CUDA would say cuInit 801, operation not supported"),
            "usermod -aG render tendon, then start the service (or log in) again",
        ),
    }
}

/// Where the dynamic linker looks: its configuration's folders, and those that JetPack and Debian use.
fn library_folders(tree: &Tree) -> Vec<String> {
    let mut folders = Vec::new();
    for file in tree.with_prefix("/etc/ld.so.conf.d", "") {
        let text = tree.read(&file).unwrap_or_default();
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('/'));
        folders.extend(lines.map(str::to_owned));
    }
    for machine in ["aarch64-linux-gnu", "x86_64-linux-gnu"] {
        folders.push(format!("/usr/lib/{machine}"));
        folders.push(format!("/usr/lib/{machine}/nvidia"));
        folders.push(format!("/usr/lib/{machine}/tegra"));
    }
    folders.extend(["/usr/lib".to_owned(), "/usr/local/lib".to_owned()]);
    for cuda in tree.with_prefix("/usr/local", "cuda") {
        folders.push(format!("{cuda}/lib64"));
        folders.push(format!("{cuda}/targets/aarch64-linux/lib"));
    }
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let new = !seen.contains(folder);
        seen.push(folder.clone());
        new
    });
    folders
}

/// Files `name` and `name.N...` in the linker's folders. The longest name tells the version: `libnvinfer.so.10.3.0`.
fn library(tree: &Tree, check: &'static str, name: &str) -> Finding {
    let mut found: Vec<(String, String)> = Vec::new();
    for folder in library_folders(tree) {
        for file in tree.list(&folder) {
            let Some(version) = file.strip_prefix(name) else {
                continue;
            };
            if let Some(version) = version.strip_prefix('.') {
                found.push((version.to_owned(), format!("{folder}/{file}")));
            }
        }
    }
    let full = found
        .iter()
        .max_by_key(|(version, path)| (version.matches('.').count(), path.len()));
    match full {
        Some((version, path)) => Finding::good(check, format!("{version} ({path})")),
        None if is_tegra(tree) => Finding::warning(
            check,
            format!("no {name}.* where the linker looks: policies run on the CPU"),
            "apt install nvidia-jetpack-runtime (or nvidia-l4t-cuda, cuda-cudart, libnvinfer10), then ldconfig",
        ),
        None => Finding::absent(check, format!("no {name}.*; the CPU engine needs none")),
    }
}

fn cameras(tree: &Tree, who: &Who) -> Finding {
    const CHECK: &str = "cameras";
    let mut found = Vec::new();
    for device in tree.with_prefix("/sys/class/video4linux", "video") {
        // A UVC camera has a second node, for metadata, with index 1.
        if tree.number(&format!("{device}/index")).unwrap_or(0) != 0 {
            continue;
        }
        let node = device.replace("/sys/class/video4linux", "/dev");
        if let Some(why) = barred(tree, who, &node) {
            return Finding::warning(
                CHECK,
                why,
                "usermod -aG video tendon, then start the service (or log in) again",
            );
        }
        let name = tree.read(&format!("{device}/name")).unwrap_or_default();
        found.push((node, name));
    }
    let stable = tree.with_prefix("/dev/tendon", "camera-").len();
    if found.is_empty() {
        return Finding::absent(
            CHECK,
            "none at this machine; one that is reached over the link needs none",
        );
    }
    let modes = modes(tree);
    let named = found
        .iter()
        .map(|(node, name)| format!("{node} \"{name}\"{}", modes(node)));
    let list = named.collect::<Vec<_>>().join(", ");
    if stable == 0 {
        return Finding::warning(
            CHECK,
            format!("{list}; their numbers may change at the next start"),
            "install systemd/udev.rules and use /dev/tendon/camera-*",
        );
    }
    Finding::good(
        CHECK,
        format!("{list}; {stable} stable names in /dev/tendon"),
    )
}

/// What the camera at a node can give, in words. The drivers are asked once, all of them; those of a recorded tree cannot be.
#[cfg(feature = "v4l")]
fn modes(tree: &Tree) -> impl Fn(&str) -> String {
    let found = if tree.is_machine() {
        crate::capture::discovery::discover(std::path::Path::new("/dev"))
    } else {
        Vec::new()
    };
    move |node| {
        let camera = found
            .iter()
            .find(|found| found.device == std::path::Path::new(node));
        camera.map_or_else(String::new, |camera| {
            let modes: Vec<String> = camera.modes.iter().map(ToString::to_string).collect();
            format!(" ({})", modes.join(", "))
        })
    }
}

/// A build without kernel cameras cannot ask.
#[cfg(not(feature = "v4l"))]
fn modes(tree: &Tree) -> impl Fn(&str) -> String {
    let words = if tree.is_machine() {
        " (modes: a build with --features v4l, or v4l2-ctl --list-formats-ext)"
    } else {
        ""
    };
    move |_| words.to_owned()
}

fn nodes(tree: &Tree, who: &Who, check: &'static str, folder: &str, prefixes: &[&str]) -> Finding {
    let nodes: Vec<String> = prefixes
        .iter()
        .flat_map(|prefix| tree.with_prefix(folder, prefix))
        .collect();
    if nodes.is_empty() {
        return Finding::absent(
            check,
            format!(
                "no {folder}/{}*",
                prefixes.join(format!("*, {folder}/").as_str())
            ),
        );
    }
    match nodes.iter().find_map(|node| barred(tree, who, node)) {
        None => Finding::good(check, nodes.join(", ")),
        Some(why) => Finding::warning(
            check,
            why,
            "add the user to that group (systemd/sysusers.conf does it for the user tendon) and start again",
        ),
    }
}
