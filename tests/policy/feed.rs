// SPDX-License-Identifier: Apache-2.0
//! What a policy is fed, against vectors made by the libraries that the families use (`engines/families/golden_picture.py`).

use safetensors::SafeTensors;
use serde_json::Value;
use std::sync::LazyLock;
use tendon::policy::normalise::{Convention, Mode, Normaliser, figures};
use tendon::policy::picture::history::History;
use tendon::policy::picture::kernel::{Filter, Library};
use tendon::policy::picture::{Axes, CameraFile, Colour, Feed, Fit, Levels, PictureOp};
use tendon::policy::prompt::{Clean, Prompt, PromptFault, PromptFile, Side, StateDigits, TooLong};

static NORMALISE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("golden/normalise.json")).expect("golden vectors")
});
static PROMPT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("golden/prompt.json")).expect("golden vectors")
});
static PICTURE: &[u8] = include_bytes!("golden/picture.safetensors");

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|x| x.as_f64().expect("a number") as f32)
        .collect()
}

/// The picture of the golden script: a linear congruential generator's high bytes.
fn noise(width: usize, height: usize) -> Vec<u8> {
    let mut state = 7_u32;
    (0..width * height * 3)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn smooth(width: usize, height: usize) -> Vec<u8> {
    (0..width * height * 3)
        .map(|at| {
            let (c, x, y) = (at % 3, at / 3 % width, at / 3 / width);
            ((x * 3 + y * 2 + c * 40 + (x / 16 % 2) * 90 + (y / 24 % 2) * 60) % 256) as u8
        })
        .collect()
}

fn golden(key: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(PICTURE).expect("golden pictures");
    let view = file.tensor(key).expect(key);
    match view.dtype() {
        safetensors::Dtype::U8 => view.data().iter().map(|byte| f32::from(*byte)).collect(),
        _ => view
            .data()
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes(word.try_into().expect("four bytes")))
            .collect(),
    }
}

fn camera(
    source: [usize; 2],
    ops: Vec<PictureOp>,
    levels: Vec<Levels>,
    layout: Axes,
) -> CameraFile {
    CameraFile {
        role: "front".into(),
        source_size: source,
        ops,
        levels,
        layout,
        color: Colour::Rgb,
        history: 1,
        spacing_ms: 0.0,
        missing: None,
    }
}

fn raw() -> Levels {
    Levels {
        scale: 1.0,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

fn fed(file: &CameraFile, rgb: &[u8]) -> Vec<f32> {
    let mut feed = Feed::new(file, "camera").expect("a camera that works");
    let mut tensor = vec![f32::NAN; feed.values()];
    assert!(feed.fill(rgb, &mut tensor));
    tensor
}

fn resize(
    to: [usize; 2],
    fit: Fit,
    filter: Filter,
    library: Library,
    bytes: bool,
    pad: f32,
) -> PictureOp {
    PictureOp::Resize {
        width: to[0],
        height: to[1],
        fit,
        filter,
        library,
        bytes,
        pad,
    }
}

/// Largest and mean difference, of 255.
fn differs(found: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len());
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let most = apart.clone().fold(0.0, f32::max);
    let mean = apart.sum::<f32>() / found.len() as f32;
    (most, mean)
}

#[test]
fn resizes_are_those_of_pillow_torch_and_opencv_to_one_of_255() {
    let cases = [
        ("down", [160, 120], [56, 56]),
        ("up", [40, 30], [56, 64]),
        ("odd", [101, 67], [48, 31]),
    ];
    let kernels = [
        ("pillow.bilinear", Library::Pillow, Filter::Bilinear, true),
        ("pillow.bicubic", Library::Pillow, Filter::Bicubic, true),
        ("pillow.lanczos3", Library::Pillow, Filter::Lanczos3, true),
        (
            "torch_antialias.bilinear",
            Library::TorchAntialias,
            Filter::Bilinear,
            true,
        ),
        (
            "torch_antialias.bicubic",
            Library::TorchAntialias,
            Filter::Bicubic,
            true,
        ),
        ("torch.bilinear", Library::Torch, Filter::Bilinear, false),
        ("torch.bicubic", Library::Torch, Filter::Bicubic, false),
        ("opencv.bilinear", Library::Opencv, Filter::Bilinear, true),
        ("opencv.bicubic", Library::Opencv, Filter::Bicubic, true),
        ("opencv.area", Library::Opencv, Filter::Area, true),
    ];
    let mut bad = Vec::new();
    for (case, from, to) in cases {
        for (kind, make) in [
            ("noise", noise as fn(usize, usize) -> Vec<u8>),
            ("smooth", smooth),
        ] {
            for (name, library, filter, bytes) in kernels {
                if filter == Filter::Area && case == "up" {
                    continue;
                }
                let op = resize(to, Fit::Stretch, filter, library, bytes, 0.0);
                let file = camera(from, vec![op], vec![raw()], Axes::Nhwc);
                let found = fed(&file, &make(from[0], from[1]));
                let (most, mean) = differs(&found, &golden(&format!("{name}.{kind}.{case}")));
                println!("{name:25} {kind:6} {case:4} largest {most:.5} of 255, mean {mean:.5}");
                // Bytes may fall on the other side of a half, but for torch's, whose sums are of whole numbers. Of floats it works the
                // weights out in 32 bits.
                let bound = match (library, bytes) {
                    (Library::TorchAntialias, true) => 0.0,
                    (_, true) => 1.0,
                    (_, false) => 0.005,
                };
                if most > bound || mean > 0.2 {
                    bad.push(format!("{name}.{kind}.{case}: {most} {mean}"));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// From the camera to the tensor, as the families' own functions do it.
#[test]
fn whole_ways_are_those_of_the_families() {
    let half = Levels {
        scale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.5; 3],
    };
    let imagenet = Levels {
        scale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    let clip = Levels {
        scale: 1.0 / 255.0,
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
    };
    let bilinear = Filter::Bilinear;
    let bicubic = resize(
        [64, 64],
        Fit::Stretch,
        Filter::Bicubic,
        Library::TorchAntialias,
        true,
        0.0,
    );
    let ways = [
        // LeRobot 0.4.4 pads -1 on a picture of 0..1, which becomes -3.
        (
            "way.pi0_lerobot",
            vec![resize(
                [56, 56],
                Fit::PadCenter,
                bilinear,
                Library::Torch,
                false,
                -255.0,
            )],
            vec![half.clone()],
            5e-5,
        ),
        (
            "way.smolvla",
            vec![resize(
                [64, 64],
                Fit::PadLeftTop,
                bilinear,
                Library::Torch,
                false,
                0.0,
            )],
            vec![half.clone()],
            5e-5,
        ),
        (
            "way.clip",
            vec![resize(
                [56, 56],
                Fit::Cover,
                Filter::Bicubic,
                Library::Pillow,
                true,
                0.0,
            )],
            vec![clip.clone()],
            0.0157,
        ),
        (
            "way.openvla",
            vec![
                PictureOp::Rotate180,
                resize(
                    [56, 56],
                    Fit::Stretch,
                    Filter::Lanczos3,
                    Library::Pillow,
                    true,
                    0.0,
                ),
            ],
            vec![imagenet, half],
            0.0182,
        ),
        // A crop after a resize in floats.
        (
            "way.dit",
            vec![
                resize(
                    [48, 36],
                    Fit::Stretch,
                    bilinear,
                    Library::TorchAntialias,
                    false,
                    0.0,
                ),
                PictureOp::CenterCrop {
                    width: 32,
                    height: 32,
                },
            ],
            vec![clip],
            5e-5,
        ),
        (
            "way.n17",
            vec![
                bicubic.clone(),
                PictureOp::CenterCrop {
                    width: 58,
                    height: 58,
                },
                bicubic,
            ],
            vec![raw()],
            0.0,
        ),
    ];
    for (name, ops, levels, bound) in ways {
        let file = camera([160, 120], ops, levels, Axes::Nchw);
        let (most, _) = differs(&fed(&file, &noise(160, 120)), &golden(name));
        println!("{name}: largest {most:.6}");
        assert!(most <= bound, "{name}: {most}");
    }
}

/// `int(round((image_width - crop_width) / 2.0))` of torchvision's `center_crop`, in Python's rounding.
#[test]
fn a_crop_of_an_odd_rest_begins_where_torchvisions_does() {
    let row: Vec<u8> = (0..10).flat_map(|column| [column * 20; 3]).collect();
    for (rest, first) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (7, 4), (9, 4)] {
        let crop = PictureOp::CenterCrop {
            width: 10 - rest,
            height: 1,
        };
        let file = camera([10, 1], vec![crop], vec![raw()], Axes::Nchw);
        let found = fed(&file, &row)[0];
        assert!(
            (found - f32::from(first * 20_u8)).abs() < 1e-3,
            "{rest}: {found}"
        );
    }
}

#[test]
fn normalisation_is_each_familys_own() {
    let conventions = [
        ("lerobot", Convention::Lerobot, 1e-8),
        ("openpi", Convention::Openpi, 0.0),
        ("rlds", Convention::Rlds, 0.0),
        ("groot", Convention::Groot, 0.0),
        ("groot_n17", Convention::GrootN17, 0.0),
    ];
    let modes = [
        ("identity", Mode::Identity),
        ("mean_std", Mode::MeanStd),
        ("min_max", Mode::MinMax),
        ("quantiles", Mode::Quantiles),
        ("quantile10", Mode::Quantile10),
    ];
    let x: Vec<Vec<f32>> = NORMALISE["x"]
        .as_array()
        .expect("rows")
        .iter()
        .map(floats)
        .collect();
    let mut compared = 0;
    for (convention_name, convention, eps) in conventions {
        for (name, mode) in modes {
            let Some(golden) = NORMALISE[convention_name].get(name) else {
                continue;
            };
            let stat = |figure| floats(&NORMALISE["stats"][figure]);
            let normaliser = match figures(mode) {
                None => Normaliser::identity(9),
                Some(names) => {
                    Normaliser::new(mode, convention, eps, names.map(stat), None, "stats")
                        .expect("good statistics")
                }
            };
            for (row, (there, back)) in x.iter().zip(
                golden["in"]
                    .as_array()
                    .expect("rows")
                    .iter()
                    .zip(golden["out"].as_array().expect("rows")),
            ) {
                for (at, value) in row.iter().enumerate() {
                    for (found, expected) in [
                        (normaliser.normalise(at, *value), floats(there)[at]),
                        (normaliser.restore(at, *value), floats(back)[at]),
                    ] {
                        let bound = 2e-6 * expected.abs().max(1.0);
                        assert!(
                            (found - expected).abs() <= bound,
                            "{convention_name} {name} column {at} of {value}: expected {expected}, found {found}"
                        );
                        compared += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 12 * 2 * 900);
}

#[test]
fn statistics_that_divide_by_nothing_are_refused() {
    let refuse = |mode, first: f32, second: f32, word: &str| {
        let problems = Normaliser::new(
            mode,
            Convention::Lerobot,
            1e-8,
            [vec![first], vec![second]],
            None,
            "stats",
        )
        .expect_err(word);
        assert!(problems[0].expected.contains(word), "{problems:?}");
    };
    refuse(Mode::MeanStd, 0.0, 0.0, "mask it");
    refuse(Mode::MeanStd, 0.0, -1.0, "0 or more");
    refuse(Mode::MinMax, 2.0, 1.0, "at most max");
    refuse(Mode::MeanStd, f32::NAN, 1.0, "finite");
    refuse(Mode::Quantiles, 0.0, f32::INFINITY, "finite");
}

fn prompt_file(family: &str) -> PromptFile {
    let strip = || {
        let replace = |from: &str| Clean::Replace {
            from: from.into(),
            to: " ".into(),
        };
        vec![Clean::Strip, replace("_"), replace("\n")]
    };
    let digits = |pad_to| {
        Some(StateDigits {
            bins: 256,
            low: -1.0,
            high: 1.0,
            pad_to,
        })
    };
    let pi05 = "Task: {task}, State: {state};\nAction: ";
    let (clean, template, state_digits) = match family {
        "openvla" => (
            vec![Clean::Lower],
            "In: What action should the robot take to {task}?\nOut:",
            None,
        ),
        "pi0" => (strip(), "{task}", None),
        "pi05" => (strip(), pi05, digits(None)),
        "pi05_lerobot" => (strip(), pi05, digits(Some(32))),
        "groot" => (vec![Clean::PythonList], "{task}", None),
        _ => (vec![Clean::Lower, Clean::DropPunctuation], "{task}", None),
    };
    PromptFile {
        tokenizer: "tokenizer.json".into(),
        clean,
        template: template.into(),
        state_digits,
        special_tokens: false,
        prepend: Vec::new(),
        append: Vec::new(),
        append_if_missing: None,
        max_len: 512,
        pad_id: 0,
        pad_side: Side::Right,
        too_long: TooLong::Refuse,
    }
}

#[test]
fn prompts_are_the_families_text_and_ids() {
    let rows = PROMPT["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 30);
    for row in rows {
        let family = row["family"].as_str().expect("a name");
        let sentence = row["sentence"].as_str().expect("a sentence");
        let state = floats(&row["state"]);
        for kind in ["bpe", "unigram", "wordpiece"] {
            let bytes = serde_json::to_vec(&PROMPT["tokenizers"][kind]).expect("JSON");
            let prompt = Prompt::new(prompt_file(family), &bytes).expect("a tokenizer");
            assert_eq!(
                prompt.text(sentence, &state),
                row["text"].as_str().expect("text"),
                "{family}"
            );
            let ids: Vec<i32> = floats(&row["ids"][kind])
                .iter()
                .map(|id| *id as i32)
                .collect();
            let tokens = prompt.encode(sentence, &state).expect("a prompt that fits");
            assert_eq!(&tokens.ids[..tokens.used], &ids, "{family} {kind}");
            assert!(tokens.mask[..tokens.used].iter().all(|one| *one == 1));
            assert!(tokens.mask[tokens.used..].iter().all(|one| *one == 0));
        }
    }
}

#[test]
fn ids_are_added_padded_and_refused_as_told() {
    let bytes = serde_json::to_vec(&PROMPT["tokenizers"]["bpe"]).expect("JSON");
    let make = |change: fn(&mut PromptFile)| {
        let mut file = prompt_file("pi0");
        file.max_len = 64;
        change(&mut file);
        Prompt::new(file, &bytes).expect("a tokenizer")
    };
    let plain = make(|_| ()).encode("open", &[]).expect("fits");
    let body = plain.ids[..plain.used].to_vec();
    let dressed = make(|file| {
        file.prepend = vec![2];
        file.append = vec![108];
        file.append_if_missing = Some(29_871);
        file.pad_side = Side::Left;
        file.pad_id = 5;
    })
    .encode("open", &[])
    .expect("fits");
    let mut expected = vec![5; 64 - body.len() - 3];
    expected.push(2);
    expected.extend(&body);
    expected.extend([108, 29_871]);
    assert_eq!(dressed.ids, expected);
    // An id that stands there already is not added again.
    let once = make(|file| {
        file.append = vec![29_871];
        file.append_if_missing = Some(29_871);
    })
    .encode("open", &[])
    .expect("fits");
    assert_eq!(once.used, body.len() + 1);
    // A new line at the end is added where there is none.
    let lined = make(|file| {
        let text = "\n".into();
        file.clean = vec![Clean::EndWith { text }];
    });
    assert_eq!(lined.text("open", &[]), "open\n");
    assert_eq!(lined.text("open\n", &[]), "open\n");
    let long = "open the drawer ".repeat(40);
    assert!(matches!(
        make(|_| ()).encode(&long, &[]),
        Err(PromptFault::TooLong { max: 64, .. })
    ));
    let cut = make(|file| file.too_long = TooLong::Cut)
        .encode(&long, &[])
        .expect("cut");
    assert_eq!(cut.used, 64);
    assert!(matches!(
        make(|_| ()).encode(&"a".repeat(9_000), &[]),
        Err(PromptFault::TooManyBytes { found: 9_000, .. })
    ));
}

/// A sentence is never a template.
#[test]
fn braces_of_the_operator_stay_text() {
    let bytes = serde_json::to_vec(&PROMPT["tokenizers"]["bpe"]).expect("JSON");
    let prompt = Prompt::new(prompt_file("pi05"), &bytes).expect("a tokenizer");
    assert_eq!(
        prompt.text("say {state} {x", &[0.0]),
        "Task: say {state} {x, State: 128;\nAction: "
    );
}

#[test]
fn history_shows_frames_of_their_time_and_says_what_it_never_saw() {
    const MS: u64 = 1_000_000;
    let mut history = History::new(3, 1, 100 * MS);
    let mut out = [f32::NAN; 3];
    let mut seen = [true; 3];
    // 33 ms apart: the frames nearest to 0, 100 and 200 ms before the newest.
    history.push(&[0.0], 0);
    history.write(&mut out, &mut seen);
    assert_eq!((out, seen), ([0.0; 3], [false, false, true]));
    for frame in 1..=12_u64 {
        history.push(&[frame as f32], frame * 33 * MS);
    }
    history.write(&mut out, &mut seen);
    assert_eq!(seen, [true; 3]);
    assert_eq!(out[2], 12.0);
    assert!(
        (out[1] - 9.0).abs() <= 1.0 && (out[0] - 6.0).abs() <= 1.0,
        "{out:?}"
    );
    history.push(&[99.0], 33 * MS);
    history.write(&mut out, &mut seen);
    assert_eq!(out[2], 12.0, "an older frame is not taken");
    history.reset();
    history.push(&[5.0], 1_000 * MS);
    history.write(&mut out, &mut seen);
    assert_eq!((out, seen), ([5.0; 3], [false, false, true]));
}
