//! Garage: a second S3 server, strict about regions, that ignores `If-None-Match`. Nothing installs it unasked, so only tests that are asked for by
//! name use it.

use std::path::PathBuf;

use tempfile::TempDir;

use super::process;
use super::s3::Bucket;

/// A server of one region, gone with the test.
#[derive(Debug)]
pub(crate) struct Garage {
    folder: TempDir,
    endpoint: String,
    region: String,
    access_key: String,
    secret_key: String,
}

/// `tests/servers/garage.sh`; what it prints.
fn script(words: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/garage.sh");
    let done = process::command(path).args(words).output().unwrap();
    assert!(done.status.success(), "garage.sh {}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl Garage {
    /// Starts one. Panics with what to do when it is not installed.
    pub(crate) fn start(region: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, own) = (folder.path().join("garage").display().to_string(), std::process::id().to_string());
        script(&["start", &path, "--while", &own, region]);
        let env = script(&["env", &path]);
        let value = |name: &str| {
            let said =
                env.split_whitespace().find_map(|word| word.strip_prefix(&format!("BACKUPD_TEST_GARAGE_{name}=")));
            said.unwrap_or_else(|| panic!("no {name} in {env}")).to_owned()
        };
        let [endpoint, region, access_key, secret_key] = ["ENDPOINT", "REGION", "ACCESS_KEY", "SECRET_KEY"].map(value);
        Self { folder, endpoint, region, access_key, secret_key }
    }

    /// A fresh bucket.
    pub(crate) fn bucket(&self, label: &str) -> Bucket {
        let of = [&self.endpoint, &self.region, &self.access_key, &self.secret_key].map(String::clone);
        Bucket::create_at(label, of, false)
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        script(&["stop", &self.folder.path().join("garage").display().to_string()]);
    }
}
