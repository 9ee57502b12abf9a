// SPDX-License-Identifier: Apache-2.0
//! The page as a browser, and as a stranger, meets it: raw HTTP on a real socket.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::*;

/// A robot that swings its joints and remembers what it was asked.
struct Fake {
    began: Instant,
    asked: Mutex<Vec<String>>,
}

impl Operator for Fake {
    fn snapshot(&self) -> Snapshot {
        let t = self.began.elapsed().as_secs_f64();
        let names = [
            "base", "shoulder", "elbow", "wrist_1", "wrist_2", "wrist_3", "gripper",
        ];
        let joint = |(i, name): (usize, &&str)| JointView {
            name: (*name).into(),
            measured: (t * 0.8 + i as f64).sin() * 1.2,
            commanded: (t * 0.8 + i as f64 + 0.15).sin() * 1.2,
            min: -2.0,
            max: 2.0,
        };
        Snapshot {
            mode: "active".into(),
            reason: "asked by the operator".into(),
            instruction: "touch the red blok".into(),
            unknown_words: vec!["blok".into()],
            policy: "bench-vla".into(),
            precision: "f32".into(),
            joints: names.iter().enumerate().map(joint).collect(),
            keypoint: Some([0.5 + 0.2 * (t as f32).cos(), 0.5 + 0.2 * (t as f32).sin()]),
            presence: Some(0.93),
            inference_ms: 18.4,
            frame_to_command_ms: 41.7,
            tick_lateness_us: 62.0,
            commands_sent: (t * 100.0) as u64,
            faults: vec![Count {
                name: "states_refused",
                help: "Frames of the motor controller that were refused.",
                value: 3,
            }],
            ..Snapshot::default()
        }
    }

    fn gauges(&self) -> Vec<Gauge> {
        let zone = |name: &str, value| Gauge {
            name: "tendon_temperature_celsius",
            help: "Of a thermal zone.",
            labels: vec![("zone", name.into())],
            value,
        };
        let stalled = Gauge {
            name: "tendon_over_current_total",
            help: "Times.",
            labels: vec![],
            value: 2.0,
        };
        let mut two = zone("a \"b\"", 51.5);
        two.labels.push(("part", "p50".into()));
        vec![zone("cpu", 40.0), two, stalled]
    }

    fn picture(&self, into: &mut Picture) {
        let t = self.began.elapsed().as_secs_f32();
        (into.width, into.height, into.seq) = (320, 240, (t * 30.0) as u32);
        let (cx, cy) = (320.0 * (0.5 + 0.2 * t.cos()), 240.0 * (0.5 + 0.2 * t.sin()));
        into.rgb.clear();
        for (x, y) in (0..240).flat_map(|y| (0..320).map(move |x| (x as f32, y as f32))) {
            let block = (x - cx).abs() < 14.0 && (y - cy).abs() < 14.0;
            let grey = 120 + (y / 4.0) as u8;
            into.rgb.extend(if block {
                [200, 40, 40]
            } else {
                [grey, grey - 8, grey - 20]
            });
        }
    }

    fn instruct(&self, text: &str) -> Result<String, String> {
        self.asked.lock().unwrap().push(text.into());
        Ok(format!("now: {text}"))
    }

    fn now(&self) -> Mono {
        Mono(7)
    }

    fn request_mode(&self, mode: &str, made: Mono) -> Result<String, String> {
        assert_eq!(made, Mono(7), "as it came in");
        self.asked.lock().unwrap().push(mode.into());
        Err(format!("{mode} refused: not armed"))
    }
}

struct Page {
    running: Running,
    robot: Arc<Fake>,
    host: String,
    token: String,
}

fn page() -> Page {
    let robot = Arc::new(Fake {
        began: Instant::now(),
        asked: Mutex::default(),
    });
    let running = serve(([127, 0, 0, 1], 0).into(), robot.clone()).unwrap();
    let (host, token) = running
        .url
        .strip_prefix("http://")
        .unwrap()
        .split_once("/?token=")
        .unwrap();
    let (host, token) = (host.to_string(), token.to_string());
    Page {
        running,
        robot,
        host,
        token,
    }
}

impl Page {
    fn open(&self, request: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.host).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let request = request
            .replace("{HOST}", &self.host)
            .replace("{TOKEN}", &self.token);
        socket.write_all(request.as_bytes()).unwrap();
        socket
    }

    fn ask(&self, request: &str) -> String {
        let mut answer = Vec::new();
        self.open(request).read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn post(&self, path: &str, body: &str) -> String {
        let n = body.len();
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: {{HOST}}\r\nOrigin: http://{{HOST}}\r\nX-Tendon-Token: {{TOKEN}}\r\n\
             Content-Length: {n}\r\n\r\n{body}"
        ))
    }

    /// Reads an endless answer until `enough` bytes have come after `mark`; returns what comes after it.
    fn after(&self, request: &str, mark: &[u8], enough: usize) -> Vec<u8> {
        let mut socket = self.open(request);
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let at = seen.windows(mark.len()).position(|w| w == mark);
            if let Some(rest) = at
                .map(|at| &seen[at + mark.len()..])
                .filter(|r| r.len() >= enough)
            {
                return rest.to_vec();
            }
            let n = socket.read(&mut piece).unwrap();
            assert!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..n]);
        }
    }
}

#[track_caller]
fn check(request: &str, status: &str) {
    let answer = page().ask(request);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
}

#[test]
fn the_page_opens_with_its_token_and_asks_nobody_else() {
    let page = page();
    let answer = page.ask("GET /?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&page.token));
    assert!(!answer.contains("{{TOKEN}}") && !answer.contains("https://"));
}

#[test]
fn localhost_is_our_name() {
    let page = page();
    let port = page.host.rsplit(':').next().unwrap();
    let answer = page.ask(&format!(
        "GET /?token={{TOKEN}} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn no_token_is_403() {
    for path in [
        "/",
        "/stream",
        "/events",
        "/metrics",
        "/nowhere",
        "/?token=00",
        "/stream?token=",
    ] {
        check(
            &format!("GET {path} HTTP/1.1\r\nHost: {{HOST}}\r\n\r\n"),
            "403",
        );
    }
    // A link or a form cannot set a header, so the query is not enough to ask for something.
    check(
        "POST /mode?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nstop",
        "403",
    );
}

#[test]
fn a_program_says_the_token_as_a_bearer() {
    let ask = |method: &str, said: &str| {
        let head = format!("Host: {{HOST}}\r\nAuthorization: {said}\r\nContent-Length: 0\r\n");
        page().ask(&format!("{method} HTTP/1.1\r\n{head}\r\n"))
    };
    for said in ["Bearer {TOKEN}", "bearer {TOKEN}"] {
        assert!(
            ask("GET /metrics", said).starts_with("HTTP/1.1 200"),
            "{said}"
        );
    }
    for said in [
        "{TOKEN}",
        "Bearer",
        "Bearer ",
        "Bearer  {TOKEN}",
        "Basic {TOKEN}",
    ] {
        assert!(
            ask("GET /metrics", said).starts_with("HTTP/1.1 403"),
            "{said}"
        );
    }
    // What moves something wants the page's own header.
    assert!(ask("POST /mode", "Bearer {TOKEN}").starts_with("HTTP/1.1 403"));
}

#[test]
fn the_token_is_left_for_programs_and_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.token");
    let first = page();
    std::fs::write(&path, "an older one").unwrap();
    std::fs::write(path.with_extension("new"), "of a start that was killed").unwrap();
    first.running.leave_token(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first.token);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let nowhere = folder.path().join("nowhere/page.token");
    let refused = first.running.leave_token(&nowhere).unwrap_err().to_string();
    assert!(refused.contains("nowhere/page.token"), "{refused}");
    assert!(refused.contains("expected a folder"), "{refused}");
}

#[test]
fn foreign_host_is_403() {
    for path in ["/", "/stream", "/events"] {
        check(
            &format!("GET {path}?token={{TOKEN}} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            "403",
        );
        check(
            &format!(
                "GET {path}?token={{TOKEN}} HTTP/1.1\r\nHost: {{HOST}}\r\nHost: evil.example\r\n\r\n"
            ),
            "403",
        );
    }
}

#[test]
fn foreign_origin_is_403() {
    for origin in ["http://evil.example", "null", "https://{HOST}"] {
        for path in ["/", "/stream", "/events"] {
            let head = format!("Host: {{HOST}}\r\nOrigin: {origin}\r\n");
            check(
                &format!("GET {path}?token={{TOKEN}} HTTP/1.1\r\n{head}\r\n"),
                "403",
            );
        }
    }
}

#[test]
fn a_second_request_on_a_connection_is_not_heard() {
    let page = page();
    let one = "GET /metrics?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\n\r\n";
    let answer = page.ask(&format!("{one}{one}"));
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[test]
fn an_oversized_body_is_refused() {
    let page = page();
    let answer = page.post("/instruction", &"a".repeat(4097));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(page.robot.asked.lock().unwrap().is_empty());
}

#[test]
fn an_instruction_reaches_the_robot_and_its_answer_the_page() {
    let page = page();
    let answer = page.post("/instruction", " touch the red block\n");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("now: touch the red block"),
        "{answer}"
    );
    assert_eq!(*page.robot.asked.lock().unwrap(), ["touch the red block"]);
}

#[test]
fn a_refusal_is_told() {
    let answer = page().post("/mode", "active");
    assert!(
        answer.starts_with("HTTP/1.1 409") && answer.ends_with("not armed"),
        "{answer}"
    );
}

#[test]
fn an_unknown_mode_does_not_reach_the_robot() {
    let page = page();
    assert!(page.post("/mode", "dance").starts_with("HTTP/1.1 400"));
    assert!(page.robot.asked.lock().unwrap().is_empty());
}

#[test]
fn events_are_snapshots_in_json() {
    let page = page();
    let request = "GET /events?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\n\r\n";
    let text = String::from_utf8(page.after(request, b"data: ", 2000)).unwrap();
    let json: serde_json::Value = serde_json::from_str(text.split("\n\n").next().unwrap()).unwrap();
    assert_eq!(json["mode"], "active");
    assert_eq!(json["joints"].as_array().unwrap().len(), 7);
    assert_eq!(json["faults"][0]["value"], 3);
}

#[test]
fn a_stream_part_is_a_jpeg() {
    let request = "GET /stream?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\n\r\n";
    let part = page().after(request, b"--picture\r\n", 500);
    let at = part.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    assert_eq!(part[at + 4..at + 6], [0xFF, 0xD8]);
}

#[test]
fn metrics_are_lines_of_prometheus() {
    let answer = page().ask("GET /metrics?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for line in [
        "tendon_mode{mode=\"active\"} 1",
        "# TYPE tendon_late_ticks_total counter",
        "tendon_inference_ms 18.4",
        "# HELP tendon_states_refused_total Frames of the motor controller that were refused.",
        "# TYPE tendon_states_refused_total counter",
        "tendon_states_refused_total 3",
        "tendon_egress_allocations_total 0",
        "# TYPE tendon_temperature_celsius gauge",
        "tendon_temperature_celsius{zone=\"cpu\"} 40",
        r#"tendon_temperature_celsius{zone="a \"b\"",part="p50"} 51.5"#,
        "# TYPE tendon_over_current_total counter",
        "tendon_over_current_total 2",
    ] {
        assert_eq!(
            answer.lines().filter(|l| *l == line).count(),
            1,
            "{line} in {answer}"
        );
    }
}

#[test]
fn other_machines_are_refused() {
    for at in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let robot = Arc::new(Fake {
            began: Instant::now(),
            asked: Mutex::default(),
        });
        let at: SocketAddr = at.parse().unwrap();
        assert!(matches!(serve(at, robot), Err(PageError::NotLoopback(a)) if a == at));
    }
}

#[test]
fn dropping_it_frees_the_port() {
    let page = page();
    let _open = page.open("GET /events?token={TOKEN} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let host = page.host.clone();
    drop(page);
    assert!(TcpStream::connect(host).is_err());
}

/// Not a test: the page with a moving fake, to look at. Prints its address and stays for half a minute.
#[test]
#[ignore = "for looking at the page"]
fn show() {
    let page = page();
    println!("{}", page.running.url);
    std::thread::sleep(Duration::from_secs(30));
}
