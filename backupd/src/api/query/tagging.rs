//! `GetResources` of the Resource Groups Tagging API: what judges snapshots and clusters by their tags (Cloud Custodian) asks for them there,
//! a hundred at a time. It comes to the same endpoint, as JSON, and only for resources that it names: who lists asks `DescribeSnapshots`.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use policies::access::Action;
use serde::Deserialize;
use serde_json::{Value, json};

use super::actions::tags;
use super::call::Call;
use super::error::{Code, Fault};

/// The type of requests and answers.
pub const JSON: &str = "application/x-amz-json-1.1";

/// The service, as requests name it.
const SERVICE: &str = "ResourceGroupsTaggingAPI_20170126.";

/// The action that is spoken.
const ACTION: &str = "GetResources";

/// The most resources of a request.
const ARNS_MAX: usize = 100;

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default, rename = "ResourceARNList")]
    arns: Vec<String>,
    #[serde(default, rename = "TagFilters")]
    tags: Value,
    #[serde(default, rename = "ResourceTypeFilters")]
    types: Value,
}

/// The action that is asked of this service; `None` where it is not asked.
#[must_use]
pub fn action(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()?.strip_prefix(SERVICE)
}

/// Carries out an action.
///
/// # Errors
/// `InvalidAction`, `AccessDenied`, `InvalidParameterValue`, those of the catalog.
pub async fn run(action: &str, call: &Call<'_>, body: &[u8]) -> Result<Value, Fault> {
    if action != ACTION {
        return Err(super::actions::unknown(action));
    }
    call.allow_role(Action::ReadClusters, action).await?;
    let mut found = Vec::new();
    for arn in asked(body)? {
        match tags::of(call, &arn).await {
            // as AWS, which knows of tags only
            Ok(tags) if tags.is_empty() => {}
            Ok(tags) => found.push(json!({ "ResourceARN": arn, "Tags": listed(tags) })),
            Err(fault) if is_absent(fault.code) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(json!({ "PaginationToken": "", "ResourceTagMappingList": found }))
}

/// The resources that a request names.
fn asked(body: &[u8]) -> Result<Vec<String>, Fault> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| Fault::value(format!("The body: {error}.")))?;
    if asked.arns.is_empty() || asked.arns.len() > ARNS_MAX {
        return Err(Fault::value(format!(
            "ResourceARNList must have 1 to {ARNS_MAX} ARNs: nothing else is searched here."
        )));
    }
    let is_given = |value: &Value| value.as_array().is_some_and(|items| !items.is_empty());
    if is_given(&asked.tags) || is_given(&asked.types) {
        return Err(Fault::value("ResourceARNList cannot be given with TagFilters or ResourceTypeFilters."));
    }
    Ok(asked.arns)
}

/// Whether this says that there is nothing yet that has tags, or nothing that the caller sees.
fn is_absent(code: Code) -> bool {
    use Code::{CacheClusterNotFound, InvalidSnapshotState, ReplicationGroupNotFound, SnapshotNotFound};
    matches!(code, CacheClusterNotFound | InvalidSnapshotState | ReplicationGroupNotFound | SnapshotNotFound)
}

fn listed(tags: BTreeMap<String, String>) -> Vec<Value> {
    tags.into_iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

/// A result, or a fault by the name that this service has for it.
pub fn document(result: Result<Value, Fault>, request_id: &str) -> Response {
    let (status, body) = match result {
        Ok(value) => (StatusCode::OK, value),
        Err(fault) => {
            let name = match fault.code {
                Code::InvalidParameterValue | Code::InvalidArn => "InvalidParameterException",
                Code::InvalidAction => "UnknownOperationException",
                Code::AccessDenied => "AccessDeniedException",
                Code::Throttling => "ThrottledException",
                Code::InternalFailure => "InternalServiceException",
                other => other.row().0,
            };
            let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, json!({ "__type": name, "message": fault.message }))
        }
    };
    let head = [(header::CONTENT_TYPE.as_str(), JSON), ("x-amzn-requestid", request_id)];
    (status, head, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resources_that_are_named_are_asked_for() {
        let (arn, many) = ("arn:aws:elasticache:r:0:snapshot:s", vec!["arn"; ARNS_MAX + 1]);
        let body = |value: Value| value.to_string().into_bytes();
        assert_eq!(asked(&body(json!({ "ResourceARNList": [arn], "TagFilters": [] }))), Ok(vec![arn.to_owned()]));
        for wrong in [
            json!({}),
            json!({ "ResourceARNList": [] }),
            json!({ "ResourceARNList": many }),
            json!({ "ResourceARNList": [arn], "TagFilters": [{ "Key": "k" }] }),
            json!({ "ResourceARNList": [arn], "ResourceTypeFilters": ["elasticache"] }),
            json!({ "ResourceARNList": arn }),
            json!([]),
        ] {
            assert_eq!(
                asked(&body(wrong.clone())).map_err(|fault| fault.code),
                Err(Code::InvalidParameterValue),
                "{wrong}"
            );
        }
    }
}
