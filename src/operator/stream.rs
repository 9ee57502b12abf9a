// SPDX-License-Identifier: Apache-2.0
//! The endless answers, written to the socket by hand: camera pictures (`/stream`) and snapshots (`/events`).
//!
//! By hand, because axum takes a body that grows over time only as a trait of a crate that we do not otherwise need.
//! The picture goes through a watch channel, one slot: a browser that is slow skips pictures and delays nobody.

use std::{io, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Operator, Picture, gate::Gate};

/// 15 pictures a second: enough for an eye, and a few percent of one core to encode.
const PICTURE_PERIOD: Duration = Duration::from_nanos(1_000_000_000 / 15);
/// 10 snapshots a second.
const EVENT_PERIOD: Duration = Duration::from_millis(100);
/// A browser that takes nothing for this long is gone (guess).
const STALL_MAX: Duration = Duration::from_secs(10);
/// JPEG quality; at 80 edges of small blocks stay clean (by eye).
const JPEG_QUALITY: u8 = 80;

/// The latest encoded picture; empty until there is one.
pub(super) type Jpeg = Arc<[u8]>;

/// Which stream a request asks for.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Pictures,
    Events,
}

impl Stream {
    /// Reads it off the head of a request; `None` is for axum to answer.
    pub fn asked_by(head: &[u8]) -> Option<Self> {
        let target = head.strip_prefix(b"GET ")?;
        let path = target.split(|b| matches!(b, b' ' | b'?')).next()?;
        match path {
            b"/stream" => Some(Self::Pictures),
            b"/events" => Some(Self::Events),
            _ => None,
        }
    }
}

/// Encodes each new picture once, while somebody watches.
pub(super) async fn encode(operator: Arc<dyn Operator>, latest: watch::Sender<Jpeg>) {
    let mut every = interval(PICTURE_PERIOD);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut picture = Picture::default();
    let mut encoded = None;
    loop {
        every.tick().await;
        if latest.receiver_count() == 0 {
            continue;
        }
        operator.picture(&mut picture);
        if encoded == Some(picture.seq) {
            continue;
        }
        if let Some(bytes) = jpeg(&picture) {
            encoded = Some(picture.seq);
            latest.send_replace(bytes);
        }
    }
}

/// `None` for a picture that is not whole; the next one will be.
fn jpeg(picture: &Picture) -> Option<Jpeg> {
    let (width, height) = (
        picture.width.try_into().ok()?,
        picture.height.try_into().ok()?,
    );
    if picture.rgb.is_empty() || picture.rgb.len() != picture.width * picture.height * 3 {
        return None;
    }
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, JPEG_QUALITY)
        .encode(&picture.rgb, width, height, jpeg_encoder::ColorType::Rgb)
        .ok()?;
    Some(bytes.into())
}

/// Answers on `socket` until the browser leaves.
pub(super) async fn answer(
    socket: TcpStream,
    head: &[u8],
    which: Stream,
    gate: &Gate,
    operator: &dyn Operator,
    pictures: &watch::Sender<Jpeg>,
) {
    let Some((uri, headers)) = parse(head) else {
        return refuse(&socket, "400 Bad Request", "malformed request").await;
    };
    if let Err(denied) = gate.admit(&Method::GET, &uri, &headers) {
        return refuse(&socket, "403 Forbidden", &denied.to_string()).await;
    }
    let pump = async {
        match which {
            Stream::Pictures => send_pictures(&socket, pictures.subscribe()).await,
            Stream::Events => send_events(&socket, operator).await,
        }
    };
    // A write tells only late, and never while a picture stands still, that nobody is there.
    tokio::select! {
        _ = pump => {}
        () = left(&socket) => {}
    }
}

async fn send_pictures(socket: &TcpStream, mut pictures: watch::Receiver<Jpeg>) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=picture\r\n\
                Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n--picture\r\n";
    write(socket, head.as_bytes()).await?;
    // Whoever comes late gets the picture that stands there, and not only the next.
    pictures.mark_changed();
    while pictures.changed().await.is_ok() {
        let jpeg = pictures.borrow_and_update().clone();
        if jpeg.is_empty() {
            continue;
        }
        let part = format!(
            "Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
            jpeg.len()
        );
        write(socket, part.as_bytes()).await?;
        write(socket, &jpeg).await?;
        // The boundary follows at once: browsers show a part when they see its end.
        write(socket, b"\r\n--picture\r\n").await?;
    }
    Ok(())
}

async fn send_events(socket: &TcpStream, operator: &dyn Operator) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nretry: 1000\n\n";
    write(socket, head.as_bytes()).await?;
    let mut every = interval(EVENT_PERIOD);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let json = serde_json::to_string(&operator.snapshot())?;
        write(socket, format!("data: {json}\n\n").as_bytes()).await?;
    }
}

async fn refuse(socket: &TcpStream, status: &str, why: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}",
        why.len()
    );
    // If the refusal cannot be told, the closed socket tells it.
    let _ = write(socket, text.as_bytes()).await;
}

/// Target and headers of a request; `None` if it is not one.
fn parse(head: &[u8]) -> Option<(Uri, HeaderMap)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let mut request = lines.next()?.split(' ').skip(1);
    let uri = request.next()?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some((uri, headers))
}

/// Comes back when the other side has closed.
async fn left(socket: &TcpStream) {
    let mut scrap = [0; 256];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut scrap) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn write(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        timeout(STALL_MAX, socket.writable()).await??;
        match socket.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
