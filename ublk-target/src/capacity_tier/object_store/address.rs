//! The client for an address, with the settings and credentials of the environment.
//!
//! For S3 these are the usual variables (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
//! `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP` and what else the client knows), or else the profile `AWS_PROFILE` of
//! `AWS_SHARED_CREDENTIALS_FILE` or `~/.aws/credentials`, or else what the machine gets from its cloud.
//!
//! For Google Cloud Storage: `GOOGLE_SERVICE_ACCOUNT` or `GOOGLE_APPLICATION_CREDENTIALS` (a file each), or what the machine gets from its
//! cloud. For Azure: `AZURE_STORAGE_ACCOUNT_NAME` with `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_KEY` or a service
//! principal (`AZURE_STORAGE_CLIENT_ID`, `_CLIENT_SECRET`, `_TENANT_ID`), or the machine's identity.
//!
//! A client belongs to the runtime that it is used on.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use forerun::config::{ObjectAddress, Scheme, read_small_file};
use object_store::ObjectStore as Client;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::bucket::Bucket;
use super::fault::Secrets;
use super::provider::{Provider, connect};
use super::timing::{Patience, Timing};
use super::{Clients, ObjectStore};

/// An attempt at a read that requests wait for; several fit into its limit.
const READ_ATTEMPT: Duration = Duration::from_secs(8);
/// Any other attempt: the upload of a segment over a slow line fits into it.
const ATTEMPT: Duration = Duration::from_secs(80);
/// The largest file of credentials that is read, in bytes.
const CREDENTIALS_BYTES_MAX: u64 = 64 << 10;

/// The store at an address. Nothing is asked of it yet.
///
/// # Errors
/// Settings that cannot be used.
pub fn open_address(address: &ObjectAddress) -> io::Result<ObjectStore> {
    let (timing, name) = (Timing::default(), address.bucket());
    let (clients, secrets) = match address.scheme() {
        Scheme::File => {
            let client: Arc<dyn Client> = Arc::new(LocalFileSystem::new().with_fsync(true));
            (Clients { reads: client.clone(), all: client }, Secrets::default())
        }
        Scheme::S3 => clients(s3(name)?, &timing)?,
        Scheme::Gs => clients(gs(name), &timing)?,
        Scheme::Az => clients(az(name), &timing)?,
    };
    let prefix = Path::parse(address.prefix()).map_err(io::Error::other)?;
    let bucket = Bucket::new(clients, prefix, secrets, timing);
    Ok(ObjectStore::over(bucket, address.to_string()))
}

/// The clients of one store, with their limits.
fn clients((builder, secrets): (impl Provider, Secrets), timing: &Timing) -> io::Result<(Clients, Secrets)> {
    static TLS: Once = Once::new();
    // Another one that is installed already is as good.
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let client = |attempt, patience| {
        connect(&builder, attempt, timing.limit(patience)).map_err(|error| secrets.io_error(&error))
    };
    let reads = client(READ_ATTEMPT, Patience::Read)?;
    let all = client(ATTEMPT, Patience::Upload)?;
    Ok((Clients { reads, all }, secrets))
}

/// What is needed for Google's store but for the limits, and what of it must not be shown.
fn gs(bucket: &str) -> (GoogleCloudStorageBuilder, Secrets) {
    let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    let secret_keys = [GoogleConfigKey::ServiceAccountKey, GoogleConfigKey::BearerToken];
    let secrets = Secrets::new(secret_keys.iter().filter_map(|key| builder.get_config_value(key)));
    (builder, secrets)
}

/// What is needed for Azure's store but for the limits, and what of it must not be shown.
fn az(container: &str) -> (MicrosoftAzureBuilder, Secrets) {
    let builder = MicrosoftAzureBuilder::from_env().with_container_name(container);
    let secret_keys = [
        AzureConfigKey::AccessKey,
        AzureConfigKey::ClientSecret,
        AzureConfigKey::SasKey,
        AzureConfigKey::Token,
    ];
    let secrets = Secrets::new(secret_keys.iter().filter_map(|key| builder.get_config_value(key)));
    (builder, secrets)
}

/// What is needed for S3 but for the limits, and what of it must not be shown.
fn s3(bucket: &str) -> io::Result<(AmazonS3Builder, Secrets)> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    let secret_keys =
        [AmazonS3ConfigKey::AccessKeyId, AmazonS3ConfigKey::SecretAccessKey, AmazonS3ConfigKey::Token];
    if builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId).is_none()
        && let Some(file) = credentials_file()
    {
        let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
        match read_small_file(&file, CREDENTIALS_BYTES_MAX) {
            Ok(bytes) => {
                for (key, value) in profile_of(&String::from_utf8_lossy(&bytes), &profile) {
                    if let Ok(key) = key.parse::<AmazonS3ConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display())));
            }
        }
    }
    let secrets = Secrets::new(secret_keys.iter().filter_map(|key| builder.get_config_value(key)));
    Ok((builder, secrets))
}

fn credentials_file() -> Option<PathBuf> {
    if let Some(file) = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE") {
        return Some(file.into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(PathBuf::from(home).join(".aws/credentials"))
}

/// The settings of a profile: `key = value` lines after `[profile]`.
fn profile_of(text: &str, profile: &str) -> Vec<(String, String)> {
    let mut ours = false;
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            ours = name.trim() == profile;
        } else if let Some((key, value)) =
            line.split_once('=').filter(|_| ours && !line.starts_with(['#', ';']))
        {
            settings.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_from_the_usual_file() {
        let text = "# mine\n[other]\naws_access_key_id = A\n[ default ]\naws_access_key_id=B\n; x = y\n\
                    aws_secret_access_key = s=3cret\n[last]\nregion = r\n";
        let read = profile_of(text, "default");
        let expected = [("aws_access_key_id", "B"), ("aws_secret_access_key", "s=3cret")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(profile_of(text, "none"), []);
    }
}
