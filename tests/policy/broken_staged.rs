// SPDX-License-Identifier: Apache-2.0
//! Staged bundles that somebody broke: each is refused in words, within a second, without much memory.

use crate::families::folder;
use crate::fixture::cpu;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tendon::hash::hex;
use tendon::policy::folder::hash;
use tendon::policy::staged::Staged;
use tendon::policy::staged::bundle::{Opened, read};
use tendon::policy::{LoadOptions, ParityMiss};

/// A copy of a family's bundle.
struct Broken {
    dir: tempfile::TempDir,
}

impl Broken {
    fn of(family: &str) -> Broken {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(folder(family)).expect("a family") {
            let path = entry.expect("an entry").path();
            std::fs::copy(&path, dir.path().join(path.file_name().expect("a name")))
                .expect("a copy");
        }
        Broken { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file of the bundle")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file of the bundle");
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut root = serde_json::from_slice(&self.bytes("manifest.json")).expect("a manifest");
        change(&mut root);
        self.write("manifest.json", &serde_json::to_vec(&root).expect("JSON"));
    }

    /// Damage that came before packing: the hash is that of the damaged file.
    fn repack(&self, name: &str, bytes: &[u8]) {
        self.write(name, bytes);
        self.edit(|root| root["tendon"]["sha256"][name] = hex(&hash(bytes)).into());
    }

    fn repack_json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.bytes(name)).expect("JSON");
        change(&mut value);
        self.repack(name, &serde_json::to_vec(&value).expect("JSON"));
    }

    /// Changes the first number of one tensor of a safetensors file.
    fn repack_number(&self, name: &str, key: &str, number: f32) {
        let bytes = self.bytes(name);
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut data: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                (
                    name,
                    view.dtype(),
                    view.shape().to_vec(),
                    view.data().to_vec(),
                )
            })
            .collect();
        let tensor = data.iter_mut().find(|(name, ..)| name == key).expect(key);
        tensor.3[..4].copy_from_slice(&number.to_le_bytes());
        let views: Vec<(&String, TensorView<'_>)> = data
            .iter()
            .map(|(name, dtype, shape, data)| {
                (
                    name,
                    TensorView::new(*dtype, shape.clone(), data).expect("a view"),
                )
            })
            .collect();
        self.repack(
            name,
            &safetensors::serialize(views, None).expect("safetensors"),
        );
    }
}

/// One way to break a bundle: its name, the family, what is done, words of the refusal.
type Case = (
    &'static str,
    &'static str,
    fn(&Broken),
    &'static [&'static str],
);

fn tendon(broken: &Broken, change: impl FnOnce(&mut Value)) {
    broken.edit(|root| change(&mut root["tendon"]));
}

const STATS: &str = "policy_preprocessor_step_3_normalizer_processor.safetensors";

const CASES: &[Case] = &[
    (
        "no manifest",
        "act",
        |b| std::fs::remove_file(b.path("manifest.json")).expect("gone"),
        &["manifest.json"],
    ),
    (
        "empty manifest",
        "act",
        |b| b.write("manifest.json", b""),
        &["manifest.json", "JSON"],
    ),
    (
        "truncated manifest",
        "act",
        |b| b.write("manifest.json", &b.bytes("manifest.json")[..1_000]),
        &["manifest.json", "JSON"],
    ),
    (
        "deep manifest",
        "act",
        |b| b.write("manifest.json", "[".repeat(200_000).as_bytes()),
        &["recursion limit"],
    ),
    (
        "two megabytes of manifest",
        "act",
        |b| b.write("manifest.json", &vec![b' '; 2 << 20]),
        &["1048576 bytes"],
    ),
    (
        "no key of ours",
        "act",
        |b| {
            b.edit(|root| {
                root.as_object_mut().expect("an object").remove("tendon");
            })
        },
        &["tendon", "nothing"],
    ),
    (
        "another format",
        "act",
        |b| b.edit(|root| root["format"] = json!("zip")),
        &["policy_package"],
    ),
    (
        "another version",
        "act",
        |b| b.edit(|root| root["version"] = json!("2.0")),
        &["version", "1.0"],
    ),
    (
        "schema of the future",
        "act",
        |b| tendon(b, |t| t["schema"] = json!(3)),
        &["tendon.schema", "2 to 2"],
    ),
    (
        "unknown key",
        "act",
        |b| tendon(b, |t| t["wish"] = json!(1)),
        &["unknown field `wish`"],
    ),
    (
        "unknown key of a loop",
        "pi0",
        |b| tendon(b, |t| t["loop"]["wish"] = json!(1)),
        &["tendon.loop", "wish"],
    ),
    (
        "unknown picture operation",
        "pi0",
        |b| tendon(b, |t| t["cameras"][0]["ops"][0]["op"] = json!("blur")),
        &["tendon.cameras", "blur"],
    ),
    (
        "unknown decoder",
        "act",
        |b| tendon(b, |t| t["decoder"]["kind"] = json!("magic")),
        &["tendon.decoder", "magic"],
    ),
    (
        "no stages",
        "act",
        |b| tendon(b, |t| t["stages"] = json!([])),
        &["tendon.stages", "1 to 32"],
    ),
    (
        "two stages of one name",
        "clip",
        |b| tendon(b, |t| t["stages"][1]["id"] = json!("image_encoder")),
        &["stages[1].id"],
    ),
    (
        "a stage named as a source",
        "act",
        |b| tendon(b, |t| t["stages"][0]["id"] = json!("camera")),
        &["stages[0].id", "none of"],
    ),
    (
        "a source that is not there",
        "pi0",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["inputs"]["img_0"]["from"] = json!("camera.nose")
            })
        },
        &["img_0.from", "camera.nose"],
    ),
    (
        "an output that is not there",
        "pi0",
        |b| {
            tendon(b, |t| {
                t["stages"][1]["inputs"]["valid"]["from"] = json!("prefix.nothing")
            })
        },
        &["valid.from", "prefix.nothing"],
    ),
    (
        "a circle",
        "clip",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["inputs"]["image"] =
                    json!({"dtype": "f32", "shape": [1, 3, 4], "from": "ground.action"});
            })
        },
        &["a circle", "image_encoder", "ground"],
    ),
    (
        "a stage that reads itself",
        "humanoid",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["inputs"]["memory_in"] =
                    json!({"dtype": "f32", "shape": [1, 16], "from": "net.memory_out"});
            })
        },
        &["a circle", "net"],
    ),
    (
        "a carry of another shape",
        "humanoid",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["inputs"]["memory_in"]["carry"] = json!("net.action")
            })
        },
        &["memory_in.carry"],
    ),
    (
        "a shape that does not fit",
        "act",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["inputs"]["observation.images.top"]["shape"] = json!([1, 3, 30, 41])
            })
        },
        &["observation.images.top.shape", "3600"],
    ),
    (
        "a tensor of 16 exabytes",
        "act",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["outputs"]["actions"]["shape"] =
                    json!([4_294_967_296_u64, 4_294_967_296_u64]);
            })
        },
        &["268435456 numbers"],
    ),
    (
        "a tensor of 4 GB",
        "act",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["outputs"]["actions"]["shape"] = json!([1, 1_073_741_824])
            })
        },
        &["268435456 numbers"],
    ),
    (
        "the wrong type",
        "act",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["inputs"]["observation.state"]["dtype"] = json!("i32")
            })
        },
        &["observation.state.dtype"],
    ),
    (
        "an input that the graph does not have",
        "act",
        |b| {
            tendon(b, |t| {
                let inputs = t["stages"][0]["inputs"].as_object_mut().expect("inputs");
                let state = inputs.remove("observation.state").expect("state");
                inputs.insert("observation.joints".into(), state);
            })
        },
        &["observation.joints"],
    ),
    (
        "nine cameras",
        "humanoid",
        |b| {
            tendon(b, |t| {
                let mut camera = t["cameras"][0].clone();
                camera["role"] = json!("cam8");
                t["cameras"].as_array_mut().expect("cameras").push(camera);
            })
        },
        &["tendon.cameras (count)", "0 to 8"],
    ),
    (
        "two cameras of one role",
        "pi0",
        |b| {
            tendon(b, |t| {
                t["cameras"][1]["role"] = t["cameras"][0]["role"].clone()
            })
        },
        &["cameras[1].role"],
    ),
    (
        "a picture of a million pixels a side",
        "act",
        |b| {
            tendon(b, |t| {
                t["cameras"][0]["source_size"] = json!([1_000_000, 1_000_000])
            })
        },
        &["source_size", "4096"],
    ),
    (
        "a resize to nothing",
        "pi0",
        |b| tendon(b, |t| t["cameras"][0]["ops"][0]["width"] = json!(0)),
        &["ops[0]"],
    ),
    (
        "a deviation of zero of a colour",
        "act",
        |b| {
            tendon(b, |t| {
                t["cameras"][0]["levels"][0]["std"] = json!([0.0, 1.0, 1.0])
            })
        },
        &["levels[0]"],
    ),
    (
        "a million frames of history",
        "octo",
        |b| tendon(b, |t| t["cameras"][0]["history"] = json!(1_000_000)),
        &["history", "1 to 64"],
    ),
    (
        "a history without spacing",
        "octo",
        |b| tendon(b, |t| t["cameras"][0]["spacing_ms"] = json!(0.0)),
        &["spacing_ms"],
    ),
    (
        "a ring of a million",
        "rt1",
        |b| tendon(b, |t| t["rings"]["frames"]["len"] = json!(1_000_000)),
        &["rings.frames", "1 to 256"],
    ),
    (
        "a name twice",
        "act",
        |b| {
            tendon(b, |t| {
                t["action"]["names"][1] = t["action"]["names"][0].clone()
            })
        },
        &["tendon.action.names", "twice"],
    ),
    (
        "a unit too few",
        "act",
        |b| {
            tendon(b, |t| {
                t["action"]["units"].as_array_mut().expect("units").pop();
            })
        },
        &["tendon.action.units", "6 units"],
    ),
    (
        "a horizon that the graph does not give",
        "act",
        |b| tendon(b, |t| t["action"]["horizon"] = json!(9)),
        &["tendon.decoder", "9 rows"],
    ),
    (
        "an operation on a column that is not there",
        "bcz",
        |b| tendon(b, |t| t["action"]["post"][1]["dims"] = json!([7])),
        &["tendon.action", "columns below 7"],
    ),
    (
        "the state of another joint is added",
        "pi0",
        |b| tendon(b, |t| t["state"]["names"][0] = json!("elbow")),
        &["action.post[0]", "column 0"],
    ),
    (
        "a thousand million steps",
        "pi0",
        |b| tendon(b, |t| t["loop"]["flow"]["steps"] = json!(1_000_000_000)),
        &["loop.flow.steps", "1 to 1000"],
    ),
    (
        "no steps",
        "pi0",
        |b| tendon(b, |t| t["loop"]["flow"]["steps"] = json!(0)),
        &["loop.flow.steps"],
    ),
    (
        "more diffusion steps than trained",
        "octo",
        |b| tendon(b, |t| t["loop"]["schedule"]["steps"] = json!(21)),
        &["loop.schedule"],
    ),
    (
        "a velocity that is not there",
        "pi0",
        |b| tendon(b, |t| t["loop"]["velocity"] = json!("expert.v")),
        &["loop.velocity", "expert.v"],
    ),
    (
        "a loop that nothing decodes",
        "pi0",
        |b| {
            tendon(b, |t| {
                t.as_object_mut().expect("an object").remove("loop");
            })
        },
        &["loop.x"],
    ),
    (
        "more tokens than numbers",
        "openvla",
        |b| tendon(b, |t| t["loop"]["max"] = json!(8)),
        &["tendon.loop.max", "7 tokens"],
    ),
    (
        "a hash that is wrong",
        "act",
        |b| tendon(b, |t| t["sha256"]["act.onnx"] = json!("00")),
        &["act.onnx", "SHA-256 00"],
    ),
    (
        "a file without a hash",
        "act",
        |b| {
            tendon(b, |t| {
                t["sha256"]
                    .as_object_mut()
                    .expect("hashes")
                    .remove("act.onnx");
            })
        },
        &["act.onnx", "sha256"],
    ),
    (
        "a flipped bit in the graph",
        "act",
        |b| {
            let mut bytes = b.bytes("act.onnx");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            b.write("act.onnx", &bytes);
        },
        &["act.onnx", "SHA-256"],
    ),
    (
        "half a graph",
        "act",
        |b| b.repack("act.onnx", &b.bytes("act.onnx")[..90_000]),
        &["stages[0].onnx.fp32"],
    ),
    (
        "a graph that is text",
        "act",
        |b| b.repack("act.onnx", b"not a graph"),
        &["stages[0].onnx.fp32"],
    ),
    (
        "a path that leaves the folder",
        "act",
        |b| {
            tendon(b, |t| {
                t["stages"][0]["onnx"]["fp32"] = json!("../act.onnx");
                t["sha256"]["../act.onnx"] = json!("00");
            })
        },
        &["../act.onnx", "leaves the folder"],
    ),
    (
        "an absolute path",
        "act",
        |b| tendon(b, |t| t["sha256"]["/etc/hostname"] = json!("00")),
        &["/etc/hostname", "leaves the folder"],
    ),
    (
        "a link that leads out",
        "act",
        |b| {
            std::fs::remove_file(b.path("act.onnx")).expect("gone");
            std::os::unix::fs::symlink(folder("act").join("act.onnx"), b.path("act.onnx"))
                .expect("a link");
        },
        &["act.onnx", "leads out"],
    ),
    (
        "a folder for a file",
        "act",
        |b| {
            std::fs::remove_file(b.path("act.onnx")).expect("gone");
            std::fs::create_dir(b.path("act.onnx")).expect("a folder");
        },
        &["not a plain file"],
    ),
    (
        "no tokenizer",
        "pi0",
        |b| std::fs::remove_file(b.path("tokenizer.json")).expect("gone"),
        &["tokenizer.json"],
    ),
    (
        "a tokenizer that is none",
        "pi0",
        |b| b.repack("tokenizer.json", b"{}"),
        &["tokenizer.json"],
    ),
    (
        "a template without the sentence",
        "pi0",
        |b| tendon(b, |t| t["text"]["template"] = json!("go")),
        &["{task}"],
    ),
    (
        "digits that no template has",
        "pi0",
        |b| {
            tendon(b, |t| {
                t["text"]["state_digits"] = json!({"bins": 256, "low": -1.0, "high": 1.0})
            })
        },
        &["{state}"],
    ),
    (
        "statistics that are NaN",
        "act",
        |b| b.repack_number(STATS, "action.mean", f32::NAN),
        &["action.mean[0]", "finite"],
    ),
    (
        "a deviation of zero",
        "act",
        |b| b.repack_number(STATS, "observation.state.std", 0.0),
        &["observation.state.std[0]", "mask it"],
    ),
    (
        "statistics of another robot",
        "pi0",
        |b| {
            b.repack_json("norm_stats.json", |root| {
                root["norm_stats"]["actions"]["mean"]
                    .as_array_mut()
                    .expect("a list")
                    .pop();
            })
        },
        &["norm_stats.actions.mean", "7 numbers"],
    ),
    (
        "a key of statistics that is not there",
        "openvla",
        |b| tendon(b, |t| t["action"]["stats"]["key"] = json!("fractal.action")),
        &["fractal.action", "nothing"],
    ),
    (
        "a safetensors header of 2^63 bytes",
        "act",
        |b| {
            let mut bytes = b.bytes(STATS);
            bytes[..8].copy_from_slice(&(1_u64 << 63).to_le_bytes());
            b.repack(STATS, &bytes);
        },
        &[STATS, "safetensors"],
    ),
    (
        "half a fixture",
        "act",
        |b| {
            b.repack(
                "parity.safetensors",
                &b.bytes("parity.safetensors")[..10_000],
            )
        },
        &["parity.safetensors", "safetensors"],
    ),
    (
        "a fixture that is NaN",
        "act",
        |b| b.repack_number("parity.safetensors", "action", f32::NAN),
        &["parity.safetensors: action", "finite"],
    ),
    (
        "a fixture that the policy misses",
        "act",
        |b| b.repack_number("parity.safetensors", "action", 3.0),
        &["parity.safetensors (tendon.parity.error_max_fraction)"],
    ),
    (
        "a sentence too few",
        "pi0",
        |b| {
            b.repack_json("parity.json", |root| {
                root["sentences"].as_array_mut().expect("a list").pop();
            })
        },
        &["4 sentences"],
    ),
    (
        "a sentence that the table does not know",
        "rt1",
        |b| b.repack_json("parity.json", |root| root["sentences"][0] = json!("dance")),
        &["\"dance\"", "knows 2 sentences"],
    ),
    (
        "a fixture that lets anything through",
        "act",
        |b| tendon(b, |t| t["parity"]["error_max_fraction"] = json!(1.0)),
        &["error_max_fraction", "0.01"],
    ),
    (
        "a cosine that lets more through than the gate",
        "act",
        |b| tendon(b, |t| t["parity"]["cosine_min"] = json!(0.99)),
        &["cosine_min", "0.999 to 1"],
    ),
];

/// Most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .expect("a peak");
    let kilobytes: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    kilobytes << 10
}

#[test]
fn each_broken_bundle_is_refused_in_words() {
    assert!(CASES.len() >= 40);
    let before = peak();
    let mut bad = Vec::new();
    let mut slowest = (Duration::ZERO, "");
    for (name, family, damage, words) in CASES {
        let broken = Broken::of(family);
        damage(&broken);
        let began = Instant::now();
        let result = Staged::load(broken.dir.path(), LoadOptions::default(), &cpu);
        let took = began.elapsed();
        slowest = slowest.max((took, name));
        let said = match result {
            Ok(_) => {
                bad.push(format!("{name}: it loads"));
                continue;
            }
            Err(problems) => problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        };
        for word in *words {
            if !said.contains(word) {
                bad.push(format!("{name}: \"{word}\" is not in: {said}"));
            }
        }
        if took > Duration::from_secs(1) {
            bad.push(format!("{name}: took {took:?}"));
        }
    }
    let grown = peak().saturating_sub(before);
    println!(
        "{} broken bundles; slowest {:?} ({}); memory grew by {} kB",
        CASES.len(),
        slowest.0,
        slowest.1,
        grown >> 10
    );
    assert!(grown < 256 << 20, "memory grew by {grown} bytes");
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Who measures may look at a policy that misses; who drives may not.
#[test]
fn a_miss_is_reported_to_who_asks() {
    let broken = Broken::of("act");
    broken.repack_number("parity.safetensors", "action", 3.0);
    let options = LoadOptions {
        parity_miss: ParityMiss::Report,
        ..LoadOptions::default()
    };
    let policy = Staged::load(broken.dir.path(), options, &cpu).expect("it loads");
    assert!(!policy.parity().missed.is_empty());
}

/// Bytes of a manifest or a header, changed at random places: an error or a value, never a panic, never long.
#[test]
fn random_damage_never_panics() {
    let mut dice = 1_u64;
    let mut next = |below: usize| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % below
    };
    let began = Instant::now();
    let mut read_well = 0;
    for family in ["pi0", "octo", "rt1", "openvla"] {
        let manifest =
            std::fs::read(Path::new(&folder(family)).join("manifest.json")).expect("a manifest");
        let stats = std::fs::read(Path::new(&folder("act")).join(STATS)).expect("statistics");
        for _ in 0..500 {
            let mut bytes = manifest.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = next(256) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes[at] = b"0123456789-[]{},:\""[next(18)],
                }
            }
            read_well += usize::from(read(&bytes).is_ok());
            let mut bytes = stats.clone();
            let at = next(bytes.len().min(400));
            bytes[at] = next(256) as u8;
            let _ = tendon::policy::tensors::TensorFile::parse("stats", &bytes)
                .and_then(|file| file.f32("action.mean", &[6]));
        }
    }
    println!(
        "2000 manifests and 2000 headers in {:?}; {read_well} manifests could still be read",
        began.elapsed()
    );
    assert!(read_well > 0 && read_well < 2_000);
    // One that can be read is judged whole.
    let broken = Broken::of("rt1");
    for _ in 0..100 {
        let mut bytes = std::fs::read(folder("rt1").join("manifest.json")).expect("a manifest");
        let digits: Vec<usize> = (0..bytes.len())
            .filter(|at| bytes[*at].is_ascii_digit())
            .collect();
        bytes[digits[next(digits.len())]] = b"0123456789"[next(10)];
        broken.write("manifest.json", &bytes);
        let _ = Opened::open(broken.dir.path());
    }
}
