//! What the builders of all clients can do, so that limits and retries are set at one place.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore as Client, RetryConfig};

/// A connection that is not there after this is tried again.
const CONNECT: Duration = Duration::from_secs(5);
/// The most attempts of the client at one request.
const RETRIES: usize = 10;

/// A client in the making.
pub trait Provider: Clone {
    /// What the environment sets of the connection.
    fn connection(&self, key: ClientConfigKey) -> Option<String>;
    /// Sets something of the connection.
    fn with_connection(self, key: ClientConfigKey, value: String) -> Self;
    /// Sets how requests are tried again.
    fn with_retries(self, retries: RetryConfig) -> Self;
    /// The client; nothing is asked of the server yet.
    fn client(self) -> object_store::Result<Arc<dyn Client>>;
}

macro_rules! provider {
    ($builder:ty, $key:ident) => {
        impl Provider for $builder {
            fn connection(&self, key: ClientConfigKey) -> Option<String> {
                self.get_config_value(&$key::Client(key))
            }

            fn with_connection(self, key: ClientConfigKey, value: String) -> Self {
                self.with_config($key::Client(key), value)
            }

            fn with_retries(self, retries: RetryConfig) -> Self {
                self.with_retry(retries)
            }

            fn client(self) -> object_store::Result<Arc<dyn Client>> {
                Ok(Arc::new(self.build()?))
            }
        }
    };
}

provider!(AmazonS3Builder, AmazonS3ConfigKey);
provider!(GoogleCloudStorageBuilder, GoogleConfigKey);
provider!(MicrosoftAzureBuilder, AzureConfigKey);

/// A client that gives one attempt at a request as long as `attempt`, and all of them together about `limit`.
///
/// # Errors
/// Settings that cannot be used.
pub fn connect(
    builder: &impl Provider,
    attempt: Duration,
    limit: Duration,
) -> object_store::Result<Arc<dyn Client>> {
    let builder = or_set(builder.clone(), ClientConfigKey::Timeout, attempt);
    or_set(builder, ClientConfigKey::ConnectTimeout, CONNECT).with_retries(retries(limit)).client()
}

/// A limit that the environment does not set otherwise.
fn or_set<B: Provider>(builder: B, key: ClientConfigKey, time: Duration) -> B {
    if builder.connection(key).is_some() {
        return builder;
    }
    builder.with_connection(key, format!("{} seconds", time.as_secs()))
}

fn retries(limit: Duration) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(4),
        base: 2.0,
    };
    // The limit of the whole request (`bucket`) is a little longer, so that the server's own words are told.
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: limit.mul_f32(0.8) }
}
