//! What the sections of the file mean, once every name, URL and path in them is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policies::cost::Money;
use toml::Spanned;

use super::automation::Automation;
use super::copies;
use super::file::{self, Text};
use super::sealing::Sealing;
use super::{Cluster, Password, Repository};
use crate::catalog::{Location, Postgres};
use crate::error::{Error, Result};
use crate::redis::{AddressMap, SourceUrl, Tls};

/// Where `[catalog]` says that it is.
pub(super) fn catalog(text: Text<'_>, folder: &Path, section: &file::Catalog) -> Result<Option<Location>> {
    let password = match (&section.password_file, &section.password_env) {
        (None, None) => None,
        (Some(path), None) => Some(Password::File(folder.join(path.get_ref()))),
        (None, Some(name)) => Some(Password::Variable(name.clone())),
        (Some(path), Some(_)) => {
            return Err(text.error(path.span().start, "[catalog] has both password_file and password_env"));
        }
    };
    match (&section.path, &section.url) {
        (Some(_), Some(url)) => Err(text.error(url.span().start, "[catalog] has both path and url")),
        (None, Some(url)) => {
            let at = |e: Error| match e.advice() {
                Some(hint) => text.error(url.span().start, e.message()).hint(hint),
                None => text.error(url.span().start, e.message()),
            };
            Postgres::new(url.get_ref(), password).map(|it| Some(Location::Postgres(it))).map_err(at)
        }
        (path, None) => Ok(path.as_ref().map(|path| folder.join(path).into())),
    }
}

pub(super) fn repository(
    text: Text<'_>,
    folder: &Path,
    name: &Spanned<String>,
    section: &file::Repository,
) -> Result<Repository> {
    let checked = checked_name(text, "repository", name)?;
    let url = section.url.get_ref().parse().map_err(|e: Error| text.error(section.url.span().start, e.message()))?;
    let sealing = Sealing {
        key_file: section.key_file.as_ref(),
        kms_key: section.kms_key.as_ref(),
        kms_endpoint: section.kms_endpoint.as_ref(),
        no_encryption: section.no_encryption,
    };
    let (place, offset) = (format!("[repositories.{checked}]"), name.span().start);
    let Some(encryption) = sealing.read(text, folder, &place, offset)? else {
        return Err(text.error(offset, &format!("{place} has no key_file and no kms_key")).hint(
            "make a key with `backupd key generate FILE`, or ask for snapshots in the clear by no_encryption = true",
        ));
    };
    Ok(Repository { name: checked, url, encryption })
}

pub(super) fn cluster(
    text: Text<'_>,
    folder: &Path,
    name: &Spanned<String>,
    section: &file::Cluster,
) -> Result<Cluster> {
    let checked = checked_name(text, "cluster", name)?;
    let mut sources = Vec::new();
    for source in section.sources.get_ref() {
        let at = |reason: &str| text.error(source.span().start, reason);
        let url: SourceUrl = source.get_ref().parse().map_err(|e: Error| at(e.message()))?;
        if url.password.is_some() {
            return Err(at("a source holds a password").hint("put it into a file and name that as password_file"));
        }
        sources.push(url);
    }
    if sources.is_empty() {
        let reason = format!("[clusters.{checked}] has no source");
        return Err(text.error(section.sources.span().start, &reason));
    }
    let wrong = |reason: &str| Err(text.error(name.span().start, &format!("[clusters.{checked}] {reason}")));
    let password = match (&section.password_file, &section.password_env) {
        (Some(_), Some(_)) => return wrong("has both password_file and password_env"),
        (Some(path), None) => Some(Password::File(folder.join(path))),
        (None, Some(variable)) => Some(Password::Variable(variable.clone())),
        (None, None) => None,
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
    let identity = path(&section.tls_cert).zip(path(&section.tls_key));
    if identity.is_none() && (section.tls_cert.is_some() || section.tls_key.is_some()) {
        return wrong("has only one of tls_cert and tls_key");
    }
    let tls = Tls { ca: path(&section.tls_ca), identity, server_name: section.tls_server_name.clone() };
    if tls != Tls::default() && !sources.iter().any(|source| source.tls) {
        return wrong("has files for TLS, but no source that begins with rediss://");
    }
    let mut addresses = BTreeMap::new();
    for (announced, reached) in &section.addresses {
        AddressMap::check(announced, reached.get_ref()).map_err(|why| text.error(reached.span().start, &why))?;
        addresses.insert(announced.clone(), reached.get_ref().clone());
    }
    let sealing = Sealing {
        key_file: section.key_file.as_ref(),
        kms_key: section.kms_key.as_ref(),
        kms_endpoint: section.kms_endpoint.as_ref(),
        no_encryption: false,
    };
    let encryption = sealing.read(text, folder, &format!("[clusters.{checked}]"), name.span().start)?;
    let automation = Automation::checked(text, section)?;
    let copies = copies::read(text, &section.copies, section.repository.get_ref(), automation.policy)?;
    Ok(Cluster {
        copies,
        encryption,
        name: checked,
        sources,
        username: section.username.clone(),
        password,
        tls,
        sentinel_master: section.sentinel_master.clone(),
        repository: section.repository.get_ref().clone(),
        tags: section.tags.clone(),
        primary_use: section.primary,
        zone: section.zone.clone(),
        method: section.method,
        automation,
        data_dirs: section.data_dirs.iter().map(|(node, path)| (node.clone(), folder.join(path))).collect(),
        addresses,
    })
}

/// The price of `[cost]`.
pub(super) fn price(text: Text<'_>, section: &file::Cost) -> Result<Option<Money>> {
    let Some(price) = &section.price_per_gb_month else { return Ok(None) };
    let wrong = |error: policies::cost::NotMoney| text.error(price.span().start, &error.to_string());
    price.get_ref().parse().map(Some).map_err(wrong)
}

pub(super) fn checked_name(text: Text<'_>, what: &'static str, name: &Spanned<String>) -> Result<String> {
    match policies::names::check(what, name.get_ref()) {
        Ok(()) => Ok(name.get_ref().clone()),
        Err(e) => Err(text.error(name.span().start, &e.to_string())),
    }
}
