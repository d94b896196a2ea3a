//! Object stores that are not a disk, by URL: S3 and what speaks its protocol, Google Cloud Storage, Azure, and HDFS.
//!
//! Credentials and options come from the environment, as `object_store` reads them: `AWS_…`, `GOOGLE_…`, `AZURE_…`.

use adtally_model::{Error, Result};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Retries within a request. What fails longer is reported, and tried again by the caller.
const RETRIES_MAX: usize = 3;

/// Rejects a URL of an unknown kind of store.
///
/// # Errors
/// A user error that lists the kinds.
pub(crate) fn check(url: &Url) -> Result<()> {
    use ObjectStoreScheme::{AmazonS3, GoogleCloudStorage, MicrosoftAzure};
    match ObjectStoreScheme::parse(url) {
        Ok((AmazonS3 | GoogleCloudStorage | MicrosoftAzure, _)) => Ok(()),
        _ if url.scheme() == "hdfs" && cfg!(feature = "hdfs") => Ok(()),
        _ => Err(Error::user(format!(
            "data cannot be kept in {}: give a folder, or a URL that begins with file://, s3://, gs://, az:// or abfss://{}",
            url.scheme(),
            if cfg!(feature = "hdfs") { ", or hdfs://" } else { "" }
        ))),
    }
}

/// Opens a store at a URL.
///
/// # Errors
/// A user error when the environment lacks something that the store needs.
pub(crate) fn open(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let retries = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: Duration::from_secs(20),
    };
    let unusable = |error: object_store::Error| {
        Error::user(format!("{url} cannot be opened: check the address, and the credentials in the environment"))
            .because(error)
    };
    let (scheme, path) = match ObjectStoreScheme::parse(url) {
        Ok(parsed) => parsed,
        #[cfg(feature = "hdfs")]
        Err(_) if url.scheme() == "hdfs" => return hdfs(url),
        Err(error) => return Err(unusable(error.into())),
    };
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retries);
            Arc::new(builder.build().map_err(unusable)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retries);
            Arc::new(builder.build().map_err(unusable)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retries);
            Arc::new(builder.build().map_err(unusable)?)
        }
        _ => return check(url).and(Err(Error::internal("a store of an unknown kind was accepted"))),
    };
    Ok(below(store, path))
}

/// The part of a store below a path.
fn below(store: Arc<dyn ObjectStore>, path: Path) -> Arc<dyn ObjectStore> {
    if path.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, path)) }
}

/// Opens HDFS. Its client reads the Hadoop configuration that `HADOOP_CONF_DIR` names.
#[cfg(feature = "hdfs")]
fn hdfs(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let mut root = url.clone();
    root.set_path("");
    let store =
        hdfs_native_object_store::HdfsObjectStoreBuilder::new().with_url(root.as_str()).build().map_err(|error| {
            Error::user(format!("{url} cannot be opened: check the address and HADOOP_CONF_DIR")).because(error)
        })?;
    let path = Path::from_url_path(url.path())
        .map_err(|error| Error::user(format!("{url} has no usable path")).because(error))?;
    Ok(below(Arc::new(store), path))
}
