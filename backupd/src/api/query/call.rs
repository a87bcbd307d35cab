//! One request whose caller is known, and what its action works with.

use std::collections::BTreeMap;
use std::sync::Arc;

use policies::access::{Action, Decision, Principal, Resource};

use super::error::{Code, Fault};
use super::form::Form;
use crate::catalog::DefinitionRow;
use crate::config::Config;
use crate::error::Result as OurResult;
use crate::jobs::said;
use crate::jobs::seen::Watch;
use crate::live::Definitions;
use crate::service::Services;

/// The account that all ARNs name: there is one owner of everything here.
pub const ACCOUNT: &str = "000000000000";

/// What requests are answered from.
#[derive(Debug, Clone)]
pub struct Query {
    /// What REST is answered from too.
    pub services: Services,
    /// What was said of clusters.
    pub definitions: Arc<Definitions>,
    /// What was seen of their nodes.
    pub watch: Watch,
}

/// A request.
#[derive(Debug)]
pub struct Call<'a> {
    /// What it is answered from.
    pub query: &'a Query,
    /// Who asks.
    pub caller: &'a Principal,
    /// What for.
    pub form: &'a Form,
    /// The region that the caller believes to talk to.
    pub region: &'a str,
    /// The configuration now.
    pub config: Arc<Config>,
    /// When, ms since 1970.
    pub now_ms: u64,
}

impl Call<'_> {
    /// The ARN of a thing of this kind.
    #[must_use]
    pub fn arn(&self, kind: &str, name: &str) -> String {
        format!("arn:aws:elasticache:{}:{ACCOUNT}:{kind}:{name}", self.region)
    }

    /// Goes on when the caller may do this to a thing of a cluster. What is outside of its scope is not there: `absent` says so.
    ///
    /// # Errors
    /// `absent`, or `AccessDenied`.
    pub async fn allow(
        &self,
        action: Action,
        cluster: &str,
        tags: &BTreeMap<String, String>,
        subject: &str,
        absent: Fault,
    ) -> Result<(), Fault> {
        let decision = self.query.services.decide(self.caller, action, Resource::Of { cluster, tags }, subject).await?;
        self.allowed(decision, action, subject, absent)
    }

    /// Goes on when the caller's role allows this at all; lists are narrowed by what it sees.
    ///
    /// # Errors
    /// `AccessDenied`, which is written down.
    pub async fn allow_role(&self, action: Action, subject: &str) -> Result<(), Fault> {
        // permission is written down with the thing concerned
        if policies::access::decide(self.caller, action, Resource::Service, self.now_ms).is_allowed() {
            return Ok(());
        }
        self.allow_at_all(action, subject).await
    }

    /// Goes on when the caller may do this at all, where no thing of a cluster is concerned.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub async fn allow_at_all(&self, action: Action, subject: &str) -> Result<(), Fault> {
        let decision = self.query.services.decide(self.caller, action, Resource::Service, subject).await?;
        self.allowed(decision, action, subject, Fault::new(Code::AccessDenied, String::new()))
    }

    /// Says something of a cluster in its repository, so that it holds from now on.
    ///
    /// # Errors
    /// As [`said::of_cluster`].
    pub async fn say(
        &self,
        (repository, cluster): (&str, &str),
        change: impl Fn(Option<DefinitionRow>) -> OurResult<Option<DefinitionRow>>,
    ) -> OurResult<()> {
        let services = &self.query.services;
        Box::pin(said::of_cluster(&self.config, &services.catalog, (repository, cluster), change)).await?;
        self.query.definitions.refresh().await
    }

    fn allowed(&self, decision: Decision, action: Action, subject: &str, absent: Fault) -> Result<(), Fault> {
        if decision.is_allowed() {
            return Ok(());
        }
        if decision.hides() {
            return Err(absent);
        }
        let message = format!(
            "{} is not authorized to perform: {} on resource: {subject}: {decision}",
            self.caller.name,
            action.as_str()
        );
        Err(Fault::new(Code::AccessDenied, message))
    }
}

/// A page of what `items` has behind `marker`, and the marker of the next page. Items are ordered by `id`.
pub fn page<T>(items: Vec<T>, marker: Option<&str>, count: usize, id: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
    let mut rest: Vec<T> = items.into_iter().filter(|item| marker.is_none_or(|marker| id(item) > marker)).collect();
    let is_more = rest.len() > count;
    rest.truncate(count);
    let next = rest.last().filter(|_| is_more).map(|item| id(item).to_owned());
    (rest, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_meet_without_gap_or_repetition() {
        let all: Vec<String> = (10..75).map(|n| format!("c{n}")).collect();
        let (mut seen, mut marker, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let (items, next) = page(all.clone(), marker.as_deref(), 20, |item| item.as_str());
            seen.extend(items);
            pages += 1;
            let Some(next) = next else { break };
            marker = Some(next);
        }
        assert_eq!((seen, pages), (all, 4));
        assert_eq!(page(vec!["a".to_owned()], None, 1, |item| item.as_str()).1, None);
    }
}
