//! `CopySnapshot`: into another repository, or with `TargetBucket` as plain RDB files.

use policies::access::Action;
use policies::job::Kind;

use super::super::call::Call;
use super::super::check;
use super::super::error::{Code, Fault};
use super::super::shapes::Snapshot;
use super::super::xml::Writer;
use super::making::{NAME_LEN_MAX, check_free, check_key, once};
use crate::jobs::submit;
use crate::service::snapshots::Found;

/// The longest name of exported files.
const EXPORT_NAME_LEN_MAX: usize = 1000;

pub(super) async fn copy(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let source = call.form.required("SourceSnapshotName")?;
    let target = call.form.required("TargetSnapshotName")?;
    let (bucket, key_id) = (call.form.said("TargetBucket"), call.form.said("KmsKeyId"));
    check::tags(call.form)?;
    let shape = match bucket {
        Some(bucket) if call.config.repository(bucket).is_err() => {
            if target.len() > EXPORT_NAME_LEN_MAX || policies::names::check("file", target).is_err() {
                let message = "The parameter TargetSnapshotName must begin with a letter or digit and have at most 128 letters, digits, '.', '_' and '-'.";
                return Err(Fault::value(message));
            }
            if key_id.is_some() {
                return Err(Fault::combination(
                    "KmsKeyId cannot be given with TargetBucket: exported files are not encrypted here.",
                ));
            }
            let found = call.snapshot(source, Action::ExportSnapshot).await?;
            export(call, &found, target, bucket).await?
        }
        repository => {
            let target = check::new_id("TargetSnapshotName", target, NAME_LEN_MAX)?;
            let found = call.snapshot(source, Action::CopySnapshot).await?;
            duplicate(call, &found, &target, repository, key_id).await?
        }
    };
    out.element("Snapshot", |out| shape.write(out, false));
    Ok(())
}

/// Into another repository of the configuration: the one that is named, else the only other one.
async fn duplicate(
    call: &Call<'_>,
    found: &Found,
    target: &str,
    repository: Option<&str>,
    key_id: Option<&str>,
) -> Result<Snapshot, Fault> {
    let others: Vec<&str> = call
        .config
        .repositories()
        .map(|section| section.name.as_str())
        .filter(|name| *name != found.repository && repository.is_none_or(|wanted| wanted == *name))
        .collect();
    let [to] = *others.as_slice() else {
        let names = if others.is_empty() { "there is none".to_owned() } else { others.join(", ") };
        let message = format!(
            "A copy goes into another repository than {}; name one as TargetBucket: {names}.",
            found.repository
        );
        return Err(Fault::combination(message));
    };
    check_key(call, to, key_id)?;
    check_free(call, target).await?;
    let (to, name) = (to.to_owned(), target.to_owned());
    let parameters = submit::CopyParameters { to, name, ..submit::CopyParameters::default() };
    let job = once(call, call.job_of(found, Kind::Copy, &parameters)?, target).await?;
    Ok(call.shape_of_job(target, &job).await?)
}

/// As plain files, to a place of the configuration.
async fn export(call: &Call<'_>, found: &Found, target: &str, bucket: &str) -> Result<Snapshot, Fault> {
    let (to, prefix) = place(call, bucket)?;
    let parameters =
        submit::ExportParameters { to, prefix, name: target.to_owned(), ..submit::ExportParameters::default() };
    let snapshot = &found.snapshot;
    parameters.check(&call.config, &snapshot.name)?;
    once(call, call.job_of(found, Kind::Export, &parameters)?, &snapshot.name).await.map_err(|fault| {
        match fault.code {
            Code::SnapshotAlreadyExists => {
                Fault::new(Code::InvalidSnapshotState, format!("Snapshot {} is busy.", snapshot.name))
            }
            _ => fault,
        }
    })?;
    Ok(call.shape(snapshot).await?)
}

/// The section `[exports.NAME]` of a bucket, or of that name, and the prefix below it.
fn place(call: &Call<'_>, wanted: &str) -> Result<(String, String), Fault> {
    let (bucket, prefix) = wanted.split_once('/').unwrap_or((wanted, ""));
    let is_it = |export: &&crate::config::target::Export| export.name == bucket || export.is_bucket(bucket);
    match call.config.exports().find(is_it) {
        Some(export) => Ok((export.name.clone(), if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() })),
        None => Err(Fault::value(format!(
            "The S3 bucket {bucket} is not a place that exports may go to: name it in a section [exports.NAME] of the configuration."
        ))),
    }
}
