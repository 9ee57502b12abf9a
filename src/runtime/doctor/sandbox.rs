// SPDX-License-Identifier: Apache-2.0
//! What the unit that starts a deployment keeps from it, and not from the doctor: a GPU's nodes and memory for code that is made
//! while it runs, and files in the folders of people and in temporary ones. Other machines: `hosts`.
//!
//! What cannot work is bad; what may work, and what has something to fall back to, is a warning. Not judged: what other keys
//! forbid (`ProtectSystem=`, `InaccessiblePaths=`), and the rights of the user whom the unit starts it as.

use super::machine::is_tegra;
use super::unit::Unit;
use super::{Finding, Verdict, cameras};
use crate::config::camera::CameraSource;
use crate::config::{Config, EngineKind, PolicyConfig};
use crate::runtime::health::Tree;
use std::path::{Component, Path, PathBuf};

/// Opened by whatever uses a Jetson's GPU: CUDA answers 999 without it.
const NVMAP: &str = "/dev/nvmap";
/// The others that systemd/tendon.service.d/jetson.conf names, but for the render nodes.
const GPU_NODES: [&str; 17] = [
    "/dev/host1x-fence",
    "/dev/nvhost-ctrl-gpu",
    "/dev/nvhost-as-gpu",
    "/dev/nvhost-gpu",
    "/dev/nvhost-prof-gpu",
    "/dev/nvhost-dbg-gpu",
    "/dev/nvhost-sched-gpu",
    "/dev/nvhost-tsg-gpu",
    "/dev/nvhost-ctxsw-gpu",
    "/dev/nvgpu/igpu0/ctrl",
    "/dev/nvgpu/igpu0/as",
    "/dev/nvgpu/igpu0/channel",
    "/dev/nvgpu/igpu0/tsg",
    "/dev/nvgpu/igpu0/ctxsw",
    "/dev/nvgpu/igpu0/prof",
    "/dev/nvgpu/igpu0/dbg",
    "/dev/nvgpu/igpu0/sched",
];
/// Of which group each is depends on the release: a unit that lets one of these be opened is believed.
const GPU_GROUPS: [&str; 4] = ["misc", "nvhost", "nvgpu", "host1x-fence"];

/// How bad it is that one engine does not run: the next of the ladder does, if there is one.
pub(super) fn without(policy: &PolicyConfig, lost: EngineKind) -> Verdict {
    if policy.engines.iter().all(|kind| *kind == lost) {
        Verdict::Bad
    } else {
        Verdict::Warning
    }
}

/// Whether the unit lets an engine on a Jetson's GPU work; `None` where none is asked for.
pub(super) fn gpu(tree: &Tree, policy: &PolicyConfig, unit: &Unit) -> Option<Finding> {
    const CHECK: &str = "unit: GPU";
    let on_gpu = |kind: &&EngineKind| match kind {
        EngineKind::TensorRt => true,
        EngineKind::Ort => !policy.ort_providers.is_empty(),
        EngineKind::Cpu | EngineKind::Remote => false,
    };
    let engines = policy.engines.iter().filter(on_gpu);
    let engines: Vec<&str> = engines.map(|kind| kind.word()).collect();
    if engines.is_empty() || !is_tegra(tree) {
        return None;
    }
    let engines = engines.join(", ");
    let mut barred: Vec<String> = std::iter::once(NVMAP)
        .chain(GPU_NODES)
        .filter(|node| tree.exists(node) && unit.bars(node, &GPU_GROUPS))
        .map(str::to_owned)
        .collect();
    let mut render = tree.with_prefix("/dev/dri", "renderD");
    render.retain(|node| unit.bars(node, &["drm"]));
    barred.append(&mut render);
    let denies_code = unit.is_set("MemoryDenyWriteExecute");
    if barred.is_empty() && !denies_code {
        let found = format!("{} lets {engines} use it", unit.name);
        return Some(Finding::good(CHECK, found));
    }
    let mut wrong = Vec::new();
    if !barred.is_empty() {
        wrong.push(format!(
            "{} may not be opened (DevicePolicy=, DeviceAllow=)",
            barred.join(", ")
        ));
    }
    if denies_code {
        let why = "no code may be made while it runs (MemoryDenyWriteExecute=yes), as CUDA and TensorRT do";
        wrong.push(why.to_owned());
    }
    // ONNX Runtime goes on with the processor, so it is TensorRT alone that may leave nobody.
    let verdict = match barred.iter().any(|node| node == NVMAP) {
        true => without(policy, EngineKind::TensorRt),
        false => Verdict::Warning,
    };
    Some(Finding {
        verdict,
        ..Finding::warning(
            CHECK,
            format!("{engines} by {}: {}", unit.name, wrong.join("; ")),
            format!(
                "copy systemd/tendon.service.d/jetson.conf to /etc/systemd/system/{}.d/ (MemoryDenyWriteExecute=no, and DeviceAllow=NODE rw for each node); then systemctl daemon-reload",
                unit.name
            ),
        )
    })
}

/// What the runtime does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Read,
    Write,
    /// Reads it, and writes beside it.
    Both,
}

/// A file or folder of a deployment.
struct Used {
    what: String,
    path: PathBuf,
    does: Does,
    /// How bad it is to go without.
    worst: Verdict,
}

/// What a unit makes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// There, and not to be written to.
    ReadOnly,
    /// Not there.
    Away,
    /// Not there; what is written is in a folder that nobody else sees, and goes when the unit stops.
    Own,
}

/// Where the daemon of a Jetson's CSI cameras is asked. A daemon that is started again makes another, so the file alone must not be
/// brought in.
const ARGUS: &str = "/tmp/argus_socket";
/// Where people's files are, which `ProtectHome=` is about.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What `PrivateTmp=` is about.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// What the unit makes of a path that it does not leave as it is, and the key that does.
fn kept(unit: &Unit, path: &Path) -> Option<(Kept, String)> {
    let is_in = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let home = unit.value("ProtectHome").unwrap_or_default();
    let (kept, key) = if is_in(&HOMES) {
        let kept = match home.as_str() {
            "read-only" => Kept::ReadOnly,
            "tmpfs" => Kept::Away,
            // Nothing is mounted below what is made inaccessible: a bind mount there is passed over.
            _ if unit.is_set("ProtectHome") => {
                return Some((Kept::Away, format!("ProtectHome={home}")));
            }
            _ => return None,
        };
        (kept, format!("ProtectHome={home}"))
    } else if is_in(&TEMPORARY) {
        let private = unit.value("PrivateTmp").unwrap_or_default();
        if !unit.is_set("PrivateTmp") && private != "disconnected" {
            return None;
        }
        (Kept::Own, format!("PrivateTmp={private}"))
    } else {
        return None;
    };
    if binds(unit, "BindPaths", path) {
        None
    } else if binds(unit, "BindReadOnlyPaths", path) {
        Some((Kept::ReadOnly, "BindReadOnlyPaths=".to_owned()))
    } else {
        Some((kept, key))
    }
}

/// Whether a bind mount brings `path` back. An entry is `-source:destination:options`, of which the first alone must be there.
fn binds(unit: &Unit, key: &str, path: &Path) -> bool {
    let lines = unit.values(key);
    let mut entries = lines.iter().flat_map(|line| line.split_whitespace());
    entries.any(|entry| {
        let mut parts = entry.trim_matches('"').trim_start_matches('-').split(':');
        let source = parts.next().unwrap_or_default();
        let destination = parts.next().filter(|part| !part.is_empty());
        let destination = destination.unwrap_or(source);
        !destination.is_empty() && path.starts_with(destination)
    })
}

/// The path without `..`, and where it really lies, which is elsewhere if there are links in it.
fn places(tree: &Tree, path: &Path) -> Vec<PathBuf> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in whole.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    // Links of a recorded tree lead out of it.
    let real = tree.is_machine().then(|| path.canonicalize().ok());
    std::iter::once(plain).chain(real.flatten()).collect()
}

/// Files that a pipeline's text names: `location=/srv/a.mp4`, `uri=file:///srv/a.mp4`.
fn of_pipeline(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || "=\"'!".contains(c));
    let words = words.map(|word| word.strip_prefix("file://").unwrap_or(word));
    words.filter(|word| word.starts_with('/'))
}

/// Where the runtime that the unit starts looks for plans: as [`cache`](crate::runtime::engines::cache) does, in that one's
/// environment. `None` for a folder that systemd makes for it.
fn plans(tree: &Tree, policy: &PolicyConfig, unit: &Unit) -> Option<PathBuf> {
    let made = unit.value("CacheDirectory").unwrap_or_default();
    if policy.engine_cache.is_none() && !made.is_empty() {
        return None;
    }
    let from = |name: &str, folder: &str| Some(Path::new(&unit.environment(name)?).join(folder));
    let home = || Some(Path::new(&unit.home(tree)?).join(".cache/tendon/engines"));
    policy
        .engine_cache
        .clone()
        .or_else(|| from("CACHE_DIRECTORY", "engines"))
        .or_else(|| from("XDG_CACHE_HOME", "tendon/engines"))
        .or_else(home)
}

/// Where it keeps its state: as [`state_directory`](crate::runtime::crash::state_directory), in its own environment.
fn state(tree: &Tree, unit: &Unit) -> Option<PathBuf> {
    let home = || Some(Path::new(&unit.home(tree)?).join(".local/state/tendon"));
    let set = unit.environment("STATE_DIRECTORY");
    set.or_else(|| unit.state_directory())
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&unit.environment("XDG_STATE_HOME")?).join("tendon")))
        .or_else(home)
}

/// What the deployment of the configuration at `path` reads and writes.
fn used(tree: &Tree, path: &Path, config: &Config, unit: &Unit) -> Vec<Used> {
    let (policy, link) = (&config.policy, &config.link);
    let mut all = Vec::new();
    let mut uses = |what: &str, path: &Path, does: Does, worst: Verdict| {
        all.push(Used {
            what: what.to_owned(),
            path: path.to_owned(),
            does,
            worst,
        });
    };
    uses("configuration", path, Does::Read, Verdict::Bad);
    uses("policy.bundle", &policy.bundle, Does::Read, Verdict::Bad);
    if policy.engines.contains(&EngineKind::TensorRt)
        && let Some(folder) = plans(tree, policy, unit)
    {
        let worst = without(policy, EngineKind::TensorRt);
        uses("policy.engine_cache", &folder, Does::Read, worst);
    }
    for camera in config.cameras() {
        let what = format!("camera \"{}\"", camera.name);
        let worst = cameras::worst(camera);
        match &camera.source {
            CameraSource::Images(folder) => uses(&what, folder, Does::Read, worst),
            CameraSource::Gstreamer(pipeline) => {
                for file in of_pipeline(pipeline) {
                    uses(&what, Path::new(file), Does::Read, worst);
                }
                if pipeline.contains("nvarguscamerasrc") {
                    uses(&what, Path::new(ARGUS), Does::Read, worst);
                }
            }
            CameraSource::Link | CameraSource::V4l { .. } => {}
        }
    }
    if let Some((_, password)) = &link.credentials {
        // Who listens writes the list that zenoh reads beside it.
        let does = match link.listen {
            Some(_) => Does::Both,
            None => Does::Read,
        };
        uses("link.password_file", password, does, Verdict::Bad);
    }
    if let Some(tls) = &link.tls {
        for (what, file) in [
            ("link.tls_ca", &tls.ca),
            ("link.tls_certificate", &tls.certificate),
            ("link.tls_key", &tls.key),
        ] {
            uses(what, file, Does::Read, Verdict::Bad);
        }
    }
    let page = config.page.as_ref();
    if let Some(file) = page.and_then(|page| page.token_file.as_ref()) {
        uses("page.token_file", file, Does::Write, Verdict::Bad);
    }
    if let Some(program) = &config.isolation.program {
        uses("inference_program", program, Does::Read, Verdict::Bad);
    }
    if let Some(folder) = state(tree, unit) {
        uses("state directory", &folder, Does::Write, Verdict::Bad);
    }
    all
}

/// What keeps a file from the runtime in the unit: how bad that is, in words, and the keys of a drop-in that would bring it
/// back to be read. What is written is better moved.
fn barrier(tree: &Tree, used: &Used, unit: &Unit) -> Option<(Verdict, String, Vec<String>)> {
    places(tree, &used.path).iter().find_map(|place| {
        let (kept, key) = kept(unit, place)?;
        let (verdict, why) = match (kept, used.does) {
            (Kept::ReadOnly, Does::Read) => return None,
            (Kept::ReadOnly, Does::Write | Does::Both) => (used.worst, "cannot be written to"),
            (Kept::Away, _) | (Kept::Own, Does::Read | Does::Both) => (used.worst, "is not there"),
            (Kept::Own, Does::Write) => (
                Verdict::Warning,
                "is seen by nobody else, and gone when it stops",
            ),
        };
        let place = place.display();
        let words = format!("{} {place} {why} ({key})", used.what);
        let mut keys = Vec::new();
        if used.path == Path::new(ARGUS) {
            keys.push("PrivateTmp=no, as systemd/tendon.service.d/jetson.conf has it".to_owned());
        } else if used.does == Does::Read {
            if key.starts_with("ProtectHome") {
                keys.push("ProtectHome=tmpfs".to_owned());
            }
            keys.push(format!("BindReadOnlyPaths={place}"));
        }
        Some((verdict, words, keys))
    })
}

/// Whether the unit leaves the deployment's files as the doctor sees them.
pub(super) fn files(tree: &Tree, path: &Path, config: &Config, unit: &Unit) -> Finding {
    const CHECK: &str = "unit: files";
    let (mut wrong, mut keys): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut worst = Verdict::Good;
    for used in used(tree, path, config, unit) {
        let Some((verdict, words, mends)) = barrier(tree, &used, unit) else {
            continue;
        };
        worst = worst.max(verdict);
        wrong.push(words);
        for key in mends {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if wrong.is_empty() {
        let found = format!("{} hides none of the deployment's files", unit.name);
        return Finding::good(CHECK, found);
    }
    let or = match keys.is_empty() {
        true => String::new(),
        false => format!("; or a drop-in (systemctl edit): {}", keys.join(", ")),
    };
    Finding {
        verdict: worst,
        ..Finding::warning(
            CHECK,
            format!("for {}: {}", unit.name, wrong.join("; ")),
            format!(
                "move what is read to /etc/tendon or /usr/share, what is written to /var/lib/tendon or /run/tendon{or}"
            ),
        )
    }
}
