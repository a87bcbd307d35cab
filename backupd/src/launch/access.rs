//! Who may enter the nodes of a launch, and by which protocol.

use std::path::PathBuf;

use super::folder::quoted;
use crate::error::{Class, Error, Result};
use crate::redis::{Address, SourceOptions, SourceUrl, Tls};
use crate::secret::Secret;

/// A password and certificates for the nodes of a launch; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Clients, replicas and we must give it.
    pub password: Option<Secret>,
    /// The nodes speak TLS alone.
    pub tls: Option<LaunchTls>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchTls {
    /// The authority of the certificate; clients that show one must have it from there too.
    pub ca: PathBuf,
    /// The certificate of all nodes, for the name 127.0.0.1.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Access {
    /// Lines of a node's configuration file for this port.
    ///
    /// # Errors
    /// `Config` for a file that is not there, and a password that cannot stand in such a file.
    pub(super) fn lines(&self, port: u16) -> Result<Vec<String>> {
        let mut lines = vec![format!("# node-port {port}")];
        match &self.tls {
            None => lines.push(format!("port {port}")),
            Some(LaunchTls { ca, cert, key }) => {
                lines.extend(["port 0".to_owned(), format!("tls-port {port}")]);
                lines
                    .extend(["tls-replication yes", "tls-cluster yes", "tls-auth-clients optional"].map(str::to_owned));
                for (name, path) in [("tls-ca-cert-file", ca), ("tls-cert-file", cert), ("tls-key-file", key)] {
                    let path = path.canonicalize().map_err(|error| {
                        Error::new(Class::Config, format!("{}: the file cannot be used: {error}", path.display()))
                    })?;
                    lines.push(format!("{name} {}", quoted(&path.to_string_lossy())));
                }
            }
        }
        if let Some(password) = &self.password {
            let text = password.reveal();
            if text.is_empty() || text.chars().any(char::is_control) {
                let message =
                    "the password of the new nodes is empty, or has characters that a configuration file cannot hold";
                return Err(Error::new(Class::Config, message));
            }
            lines.extend([format!("requirepass {}", quoted(text)), format!("masterauth {}", quoted(text))]);
        }
        Ok(lines)
    }

    /// How we enter the nodes on these ports.
    pub(super) fn options(&self, ports: impl Iterator<Item = u16>) -> SourceOptions {
        let tls = self.tls.is_some();
        let seed = |port| SourceUrl { address: Address::tcp("127.0.0.1", port), username: None, password: None, tls };
        let mut options = SourceOptions::new(ports.map(seed).collect());
        options.password.clone_from(&self.password);
        options.tls = Tls { ca: self.tls.as_ref().map(|tls| tls.ca.clone()), ..Tls::default() };
        options
    }
}
