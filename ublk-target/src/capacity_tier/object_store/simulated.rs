//! A server in memory for tests, and connections to it that fail, hang, sleep and die.
//!
//! The server can be one that ignores conditions (Garage), that refuses every replacement with a condition (Ceph), or that
//! lets two creators win (s3s-fs). A write that a connection gave up may arrive there much later.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore as Client, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::time::Instant;

use super::super::memory_store::Trouble;
use super::super::tests::model::Bench;
use super::fault::Secrets;
use super::timing::Timing;
use super::{Bucket, Clients, ObjectStore};

/// What the server makes of conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// As it should be.
    Honest,
    /// It writes whatever was asked.
    Ignores,
    /// It creates rightly, and refuses every replacement with a condition.
    RefusesMatch,
    /// Looks first and writes later, so that several creators win.
    NotAtomic,
}

/// Each once in so many requests, 0 for never.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rates {
    /// Refused, and nothing done.
    pub fail: u64,
    /// Done, and the answer lost.
    pub lost: u64,
    /// Refused, and done later.
    pub late: u64,
    /// A read that ends early.
    pub cut: u64,
    /// No answer at all; nothing done.
    pub hang: u64,
    /// A sleep of the whole process, for longer than any claim lasts.
    pub sleep: u64,
    /// Requests take time.
    pub latency: bool,
    /// The way there takes so long besides, and the way back, too.
    pub way: Duration,
}

struct Late {
    after: u64,
    path: Path,
    payload: PutPayload,
}

/// The server.
pub struct Server {
    memory: InMemory,
    manner: Manner,
    late: Mutex<Vec<Late>>,
}

impl Server {
    pub fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self { memory: InMemory::new(), manner, late: Mutex::default() })
    }

    /// Lets what is late arrive, in its turn or all of it.
    async fn arrivals(&self, all: bool) {
        let arrived: Vec<Late> = {
            let mut late = lock(&self.late);
            for write in late.iter_mut() {
                write.after = write.after.saturating_sub(1);
            }
            late.extract_if(.., |write| all || write.after == 0).collect()
        };
        for write in arrived {
            let _ = self.memory.put(&write.path, write.payload).await;
        }
    }

    pub async fn settle(&self) {
        self.arrivals(true).await;
    }

    pub async fn keys(&self) -> Vec<String> {
        let listed: Vec<ObjectMeta> = self.memory.list(None).try_collect().await.unwrap();
        listed.into_iter().map(|meta| meta.location.to_string()).collect()
    }

    pub fn memory(&self) -> &InMemory {
        &self.memory
    }
}

struct State {
    random: u64,
    rates: Rates,
    operations: u64,
    trouble: Option<(u64, Trouble)>,
    full: bool,
    crashed: bool,
    asleep_until: Option<Instant>,
}

/// A process's connection to the server; clones are the same one.
#[derive(Clone)]
pub struct Connection {
    pub server: Arc<Server>,
    state: Arc<Mutex<State>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(why: &'static str) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

impl Connection {
    pub fn new(server: &Arc<Server>, seed: u64) -> Self {
        let state = State {
            random: seed,
            rates: Rates::default(),
            operations: 0,
            trouble: None,
            full: false,
            crashed: false,
            asleep_until: None,
        };
        Self { server: Arc::clone(server), state: Arc::new(Mutex::new(state)) }
    }

    pub fn set_rates(&self, rates: Rates) {
        lock(&self.state).rates = rates;
    }

    /// The process does nothing for so long.
    pub fn sleep(&self, time: Duration) {
        lock(&self.state).asleep_until = Some(Instant::now() + time);
    }

    pub fn crash(&self) {
        lock(&self.state).crashed = true;
    }

    fn random(&self, below: u64) -> u64 {
        let mut state = lock(&self.state);
        state.random =
            state.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state.random >> 33) % below
    }

    fn happens(&self, rate: impl Fn(&Rates) -> u64) -> bool {
        let rate = rate(&lock(&self.state).rates);
        rate > 0 && self.random(rate) == 0
    }

    /// Time passes, and the process may be put to sleep.
    async fn pause(&self) {
        if self.happens(|rates| rates.sleep) {
            self.sleep(Duration::from_secs(20 + self.random(100)));
        }
        let Rates { latency, way, .. } = lock(&self.state).rates;
        let wait = if latency { Duration::from_micros(100 + self.random(30_000)) } else { Duration::ZERO };
        tokio::task::yield_now().await;
        tokio::time::sleep(wait + way).await;
        loop {
            let until = lock(&self.state).asleep_until.filter(|until| *until > Instant::now());
            let Some(until) = until else { break };
            tokio::time::sleep_until(until).await;
        }
    }

    /// Before a request reaches the server.
    async fn begin(&self, writes: bool) -> Result<()> {
        self.pause().await;
        self.server.arrivals(false).await;
        if self.happens(|rates| rates.hang) {
            tokio::time::sleep(Duration::from_secs(100_000)).await;
        }
        let fails = self.happens(|rates| rates.fail);
        let mut state = lock(&self.state);
        state.operations += 1;
        if state.crashed || fails {
            return Err(refused("503"));
        }
        if let Some((at, trouble)) = state.trouble
            && state.operations > at
        {
            match trouble {
                Trouble::Fail(_) => {
                    state.trouble = None;
                    return Err(refused("500"));
                }
                Trouble::Full => state.full = true,
                Trouble::Crash => {
                    state.crashed = true;
                    return Err(refused("the process was killed"));
                }
            }
        }
        if state.full && writes { Err(refused("507")) } else { Ok(()) }
    }

    /// Before the answer reaches the process.
    async fn end(&self) -> Result<()> {
        self.pause().await;
        if lock(&self.state).crashed || self.happens(|rates| rates.lost) {
            Err(refused("reset"))
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated server")
    }
}

#[async_trait]
impl Client for Connection {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.begin(true).await?;
        if self.happens(|rates| rates.late) {
            let after = 1 + self.random(60);
            lock(&self.server.late).push(Late { after, path: path.clone(), payload });
            return Err(refused("the answer did not come"));
        }
        let mode = match (self.server.manner, options.mode) {
            (Manner::Ignores, _) => PutMode::Overwrite,
            (Manner::RefusesMatch, PutMode::Update(_)) => {
                return Err(Error::Precondition { path: path.to_string(), source: "412".into() });
            }
            (Manner::NotAtomic, PutMode::Create) => {
                if self.server.memory.head(path).await.is_ok() {
                    return Err(Error::AlreadyExists { path: path.to_string(), source: "412".into() });
                }
                self.pause().await;
                PutMode::Overwrite
            }
            (_, mode) => mode,
        };
        let options = PutOptions { mode, ..options };
        let done = self.server.memory.put_opts(path, payload, options).await;
        self.end().await?;
        done
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.begin(true).await?;
        self.server.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.begin(false).await?;
        let got = self.server.memory.get_opts(path, options).await;
        self.end().await?;
        let got = got?;
        if !self.happens(|rates| rates.cut) {
            return Ok(got);
        }
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let bytes = got.bytes().await?;
        let cut: Bytes = bytes.slice(..bytes.len() / 2);
        let payload = GetResultPayload::Stream(stream::once(async { Ok(cut) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let connection = self.clone();
        let delete = move |path: Result<Path>| {
            let connection = connection.clone();
            async move {
                let path = path?;
                connection.begin(true).await?;
                let done = connection.server.memory.delete(&path).await;
                connection.end().await?;
                match done {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(path),
                    Err(error) => Err(error),
                }
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (connection, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            connection.begin(false).await?;
            let listed: Vec<ObjectMeta> =
                connection.server.memory.list(prefix.as_ref()).try_collect().await?;
            connection.end().await?;
            Ok::<_, Error>(stream::iter(listed.into_iter().map(Ok)))
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.begin(false).await?;
        self.server.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.begin(true).await?;
        self.server.memory.copy_opts(from, to, options).await
    }
}

/// A store over a connection, of a process on its own host.
pub fn store_over(connection: &Connection) -> ObjectStore {
    let client: Arc<dyn Client> = Arc::new(connection.clone());
    let clients = Clients { all: client.clone(), reads: client };
    let bucket = Bucket::new(clients, Path::from("some/prefix"), Secrets::default(), Timing::default());
    ObjectStore::over(bucket, "s3://bucket/some/prefix".to_owned()).on_host("simulated")
}

/// One process after the other on a server.
pub struct ObjectBench {
    pub connection: Connection,
}

impl Bench for ObjectBench {
    type Store = ObjectStore;

    fn new(seed: u64) -> Self {
        let manner =
            [Manner::Honest, Manner::Ignores, Manner::RefusesMatch, Manner::NotAtomic][(seed % 4) as usize];
        Self { connection: Connection::new(&Server::new(manner), seed) }
    }

    fn store(&self) -> ObjectStore {
        store_over(&self.connection)
    }

    fn trouble(&self, later: u64, trouble: Trouble) {
        let mut state = lock(&self.connection.state);
        state.trouble = Some((state.operations + later, trouble));
    }

    fn heal(&self) {
        let mut state = lock(&self.connection.state);
        (state.full, state.trouble) = (false, None);
    }

    fn operations(&self) -> u64 {
        lock(&self.connection.state).operations
    }

    fn crashed(&self) -> bool {
        lock(&self.connection.state).crashed
    }

    fn after_crash(&self) -> Self {
        self.connection.crash();
        Self { connection: Connection::new(&self.connection.server, self.connection.random(u64::MAX >> 33)) }
    }
}
