// SPDX-License-Identifier: Apache-2.0
//! The page's thread: takes connections, hands the endless ones to `stream` and answers the rest with axum.
//!
//! One request a connection (`Connection: close`), so that the head read here tells all that a connection will ask.

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    pin::Pin,
    sync::{Arc, mpsc as std_mpsc},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    Operator, PageError,
    gate::Gate,
    metrics,
    stream::{self, Jpeg, Stream},
};

/// Longest body taken; an instruction is one sentence.
const BODY_BYTES_MAX: usize = 4096;
/// Longest head of a request taken; browsers send about 1 KiB.
const HEAD_BYTES_MAX: usize = 8192;
/// Connections served at once; an open page holds two. One too many waits in the system's queue.
const CONNECTIONS_MAX: usize = 32;
/// Time for a head to arrive, and again for an answer to be ready (guess; both take milliseconds on loopback).
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a drop waits for the thread. It ends in microseconds unless the operator's side is stuck.
const STOP_WAIT: Duration = Duration::from_millis(500);

/// What a browser may do with the page: its own lines and this server, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page as long as it is served; dropping it stops the thread.
#[derive(Debug)]
pub struct Running {
    /// What to open in a browser, token included.
    pub url: String,
    token: String,
    stop: Option<oneshot::Sender<()>>,
    ended: std_mpsc::Receiver<()>,
}

impl Running {
    /// Leaves the token where a program that reads the metrics looks for it before each request, for the owner and the
    /// group of the folder. It is another one with each start.
    ///
    /// # Errors
    /// [`PageError::TokenFile`].
    pub fn leave_token(&self, path: &Path) -> Result<(), PageError> {
        let draft = path.with_extension("new");
        let leave = || {
            // One that a killed start left behind may have others' rights.
            if let Err(error) = std::fs::remove_file(&draft)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut made = OpenOptions::new();
            let mut file = made.write(true).create_new(true).mode(0o600).open(&draft)?;
            // Whatever the umask: the unit's lets no group read.
            file.set_permissions(Permissions::from_mode(0o640))?;
            file.write_all(self.token.as_bytes())?;
            std::fs::rename(&draft, path)
        };
        leave().map_err(|source| PageError::TokenFile {
            path: path.display().to_string(),
            source,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Not `join`: a page that hangs must not keep the robot's program from ending.
        let _ = self.ended.recv_timeout(STOP_WAIT);
    }
}

/// All that an answer needs.
struct Site {
    gate: Gate,
    operator: Arc<dyn Operator>,
}

/// Serves the page on `listen` from a thread of its own. Port 0 takes any free one; [`Running::url`] tells which.
pub fn serve(listen: SocketAddr, operator: Arc<dyn Operator>) -> Result<Running, PageError> {
    if !listen.ip().is_loopback() {
        return Err(PageError::NotLoopback(listen));
    }
    let (sockets, at) = std::net::TcpListener::bind(listen)
        .and_then(|sockets| {
            sockets.set_nonblocking(true)?;
            let at = sockets.local_addr()?;
            Ok((sockets, at))
        })
        .map_err(|source| PageError::Listen { at: listen, source })?;
    let gate = Gate::new(at)?;
    let token = gate.token.clone();
    let url = format!("http://{at}/?token={token}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(PageError::Thread)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = std_mpsc::channel();
    let site = Arc::new(Site { gate, operator });
    thread::Builder::new()
        .name("page".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = run(sockets, site) => if let Err(e) = result {
                        log::error!("the operator's page ended: {e}");
                    },
                    // Told to stop by the sender's drop, hence an error that is none.
                    _ = stopped => {}
                }
            });
            // First every open connection, then the word that all is closed.
            drop(runtime);
            drop(end);
        })
        .map_err(PageError::Thread)?;
    let stop = Some(stop);
    Ok(Running {
        url,
        token,
        stop,
        ended,
    })
}

async fn run(sockets: std::net::TcpListener, site: Arc<Site>) -> io::Result<()> {
    let sockets = TcpListener::from_std(sockets)?;
    let at = sockets.local_addr()?;
    let latest = watch::Sender::new(Jpeg::default());
    tokio::spawn(stream::encode(site.operator.clone(), latest.clone()));
    let (to_axum, opened) = mpsc::channel(CONNECTIONS_MAX);
    tokio::spawn(accept(sockets, site.clone(), latest, to_axum));
    axum::serve(Handed { opened, at }, routes(site)).await
}

/// Takes connections for ever.
async fn accept(
    sockets: TcpListener,
    site: Arc<Site>,
    latest: watch::Sender<Jpeg>,
    to_axum: mpsc::Sender<Opened>,
) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(seat) = seats.clone().acquire_owned().await {
        let Ok((socket, _)) = sockets.accept().await else {
            // Out of file handles, most likely: let some close.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (site, latest, to_axum) = (site.clone(), latest.clone(), to_axum.clone());
        tokio::spawn(async move {
            let Ok(Ok(head)) = timeout(PATIENCE, read_head(&socket)).await else {
                return;
            };
            if let Some(which) = Stream::asked_by(&head) {
                stream::answer(socket, &head, which, &site.gate, &*site.operator, &latest).await;
                drop(seat);
            } else {
                let _ = to_axum
                    .send(Opened {
                        head,
                        read: 0,
                        socket,
                        _seat: seat,
                    })
                    .await;
            }
        });
    }
}

/// Reads until the head is whole; what came after it comes along.
async fn read_head(socket: &TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 2048];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        socket.readable().await?;
        match socket.try_read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => head.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

fn routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(scrape))
        .route("/instruction", post(instruct))
        .route("/mode", post(mode))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(site.clone(), guard))
        .with_state(site)
}

/// Before every answer of axum: the gate; after it: the headers.
async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let admitted = site
        .gate
        .admit(request.method(), request.uri(), request.headers());
    let mut response = match admitted {
        Ok(()) => timeout(PATIENCE, next.run(request))
            .await
            .unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response()),
        Err(denied) => (StatusCode::FORBIDDEN, denied.to_string()).into_response(),
    };
    let fixed: [(HeaderName, &str); 5] = [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        // The address holds the token.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fixed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(State(site): State<Arc<Site>>) -> Html<String> {
    Html(include_str!("page.html").replace("{{TOKEN}}", &site.gate.token))
}

async fn scrape(State(site): State<Arc<Site>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    let operator = &site.operator;
    let text = metrics::text(&operator.snapshot(), &operator.gauges());
    (kind, text).into_response()
}

async fn instruct(State(site): State<Arc<Site>>, body: String) -> Response {
    match body.trim() {
        "" => told(Err("an instruction needs words".into())),
        text => told(site.operator.instruct(text)),
    }
}

async fn mode(State(site): State<Arc<Site>>, body: String) -> Response {
    match body.trim() {
        mode @ ("standby" | "stop" | "e-stop") => {
            told(site.operator.request_mode(mode, site.operator.now()))
        }
        mode @ ("active" | "reset") => {
            // Whoever wants a stop meanwhile must not wait for the disk.
            let (mode, made) = (mode.to_owned(), site.operator.now());
            let ask = move || site.operator.request_mode(&mode, made);
            let asked = tokio::task::spawn_blocking(ask);
            let broken = |error| Err(format!("the request failed: {error}; see the log"));
            told(asked.await.unwrap_or_else(broken))
        }
        _ => (
            StatusCode::BAD_REQUEST,
            "expected active, standby, stop, reset or e-stop",
        )
            .into_response(),
    }
}

/// A refusal is 409: well asked, but not in this state.
fn told(answer: Result<String, String>) -> Response {
    match answer {
        Ok(text) => text.into_response(),
        Err(why) => (StatusCode::CONFLICT, why).into_response(),
    }
}

/// The connections that axum is to answer.
struct Handed {
    opened: mpsc::Receiver<Opened>,
    at: SocketAddr,
}

impl Listener for Handed {
    type Io = Opened;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Opened, SocketAddr) {
        match self.opened.recv().await {
            Some(opened) => (opened, self.at),
            // Only at the end, when all tasks are dropped anyway.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

/// A connection whose head was read already, and is read again from here.
struct Opened {
    head: Vec<u8>,
    /// Bytes of `head` given out.
    read: usize,
    socket: TcpStream,
    _seat: OwnedSemaphorePermit,
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read == self.head.len() {
            return Pin::new(&mut self.socket).poll_read(cx, into);
        }
        let n = into.remaining().min(self.head.len() - self.read);
        into.put_slice(&self.head[self.read..self.read + n]);
        self.read += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
