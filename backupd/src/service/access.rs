//! Whether a caller may do what it asks for, with a line in the audit chain where that is decided.

use policies::access::{Action, Decision, Principal, Resource, decide};

use super::Services;
use crate::catalog::{Code, NewEvent};
use crate::clock;
use crate::error::Result;

impl Services {
    /// Decides, and writes down every refusal and every permission that changes something. `subject` is what the action is about, as
    /// the caller named it.
    ///
    /// # Errors
    /// Those of the catalog: what cannot be written down is not done.
    pub async fn decide(
        &self,
        principal: &Principal,
        action: Action,
        resource: Resource<'_>,
        subject: &str,
    ) -> Result<Decision> {
        // what only reads asks the catalog nothing
        let decision = decide(principal, action, resource, clock::unix_ms(clock::now()));
        if decision.is_allowed() && !action.changes() {
            return Ok(decision);
        }
        let now_ms = self.catalog.now_unix_ms().await?;
        if decision.is_allowed() {
            let details = format!("allowed: {decision}");
            self.catalog.audit(&principal.name, action.as_str(), subject, &details, now_ms).await?;
            return Ok(decision);
        }
        tracing::warn!(who = principal.name, action = action.as_str(), subject, why = %decision, "denied");
        self.catalog.audit(&principal.name, action.as_str(), subject, &format!("denied: {decision}"), now_ms).await?;
        let message = format!("{} may not {} `{subject}`: {decision}", principal.name, action.as_str());
        let cluster = if let Resource::Of { cluster, .. } = resource { cluster } else { "" };
        self.catalog.add_event(&NewEvent::new(Code::AccessDenied, message).of(cluster), now_ms).await?;
        Ok(decision)
    }

    /// Whether a caller sees a thing, for lists: nothing is written.
    #[must_use]
    pub fn sees(&self, principal: &Principal, resource: Resource<'_>) -> bool {
        decide(principal, Action::Describe, resource, 0).is_allowed()
    }
}
