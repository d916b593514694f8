//! An S3 server over a directory (s3s-fs), for tests, whose answers can be made to fail.
//!
//! ```text
//! s3-server --root DIR [--port P] [--access-key K --secret-key S] [--faults FILE] [--verbose]
//! ```
//! Without keys whoever asks is served. So it stands in for Google's store, whose requests are the same but for conditions, which it
//! ignores.
//!
//! A bucket is a directory below DIR. The first line printed is the server's address. What goes wrong is read from
//! FILE anew for every request (`faults`), so that a script changes it while the server runs. The server itself
//! is not atomic: of several that create the same object at once two or three may win.

mod cut;
mod faults;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;

use cut::Cut;
use faults::{Fault, Faults};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = BoxBody<Bytes, BoxError>;

#[derive(Parser)]
struct Options {
    /// Where buckets are
    #[arg(long)]
    root: PathBuf,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, requires = "secret_key")]
    access_key: Option<String>,
    #[arg(long, requires = "access_key")]
    secret_key: Option<String>,
    /// What goes wrong, read for every request; nothing while there is no such file
    #[arg(long)]
    faults: Option<PathBuf>,
    /// Notes each request on stderr: when it came and when it was answered, in ms
    #[arg(long)]
    verbose: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let files = s3s_fs::FileSystem::new(&options.root)
        .map_err(|error| anyhow::anyhow!("{}: {error:?}", options.root.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    let has_keys = options.access_key.is_some();
    if let (Some(access_key), Some(secret_key)) = (options.access_key, options.secret_key) {
        builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
    }
    let service = builder.build();
    let faults = Arc::new(Faults::new(options.faults));
    let begun = Instant::now();
    let listener = TcpListener::bind((options.host.as_str(), options.port)).await.context("cannot listen")?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Ok((socket, _)) = connection else { continue };
        if faults.stopped() {
            // As if nobody listened: the connection ends before a word was said.
            continue;
        }
        let _ = socket.set_nodelay(true);
        let (service, faults) = (service.clone(), faults.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |mut request: Request<Incoming>| {
                if !has_keys {
                    // Google's client names a token, if only an empty one.
                    request.headers_mut().remove(AUTHORIZATION);
                }
                let (came, asked) = (begun.elapsed(), format!("{} {}", request.method(), request.uri()));
                let answer = answer(service.clone(), faults.clone(), request);
                async move {
                    let answer = answer.await;
                    if options.verbose {
                        let status = answer.as_ref().map_or(0, |response| response.status().as_u16());
                        eprintln!(
                            "{:6} {:6} {status} {asked}",
                            came.as_millis(),
                            begun.elapsed().as_millis()
                        );
                    }
                    let mut response = answer?;
                    if !has_keys {
                        response.headers_mut().insert("x-goog-generation", generation());
                    }
                    Ok::<_, Reset>(response)
                }
            });
            // A connection that ends badly is what was asked for, or the client's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

/// A number that Google's store gives to each state of an object, and that its client asks for.
fn generation() -> HeaderValue {
    static LAST: AtomicU64 = AtomicU64::new(0);
    HeaderValue::from(LAST.fetch_add(1, Ordering::Relaxed) + 1)
}

/// Ends the connection without an answer.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for Reset {}

async fn answer(
    service: S3Service,
    faults: Arc<Faults>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let planned = faults.plan();
    tokio::time::sleep(planned.delay).await;
    match planned.fault {
        Some(Fault::Error) => {
            let text = "<Error><Code>InternalError</Code><Message>made to fail</Message></Error>";
            let mut response = Response::new(whole(text));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(response);
        }
        Some(Fault::Reset) => return Err(Reset),
        Some(Fault::Hang) => {
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let response = match Service::call(&service, request).await {
        Ok(response) => response,
        Err(_) => return Err(Reset),
    };
    match planned.fault {
        // It was done, and nobody hears of it.
        Some(Fault::Lost) => Err(Reset),
        Some(Fault::Cut) => Ok(response.map(|body| Cut::new(body).boxed())),
        _ => Ok(response.map(BodyExt::boxed)),
    }
}

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {}).boxed()
}
