//! `backupd grant …`

use std::path::Path;

use clap::{Args, Subcommand};
use policies::grants::{Principal, Scope, Way};
use serde_json::{Value, json};

use super::ledger::Ledger;
use super::output::{Output, table};
use super::reach::{Context, RepositoryArgs};
use crate::crypt::keyring::Keyring;
use crate::crypt::kms::Kms;
use crate::crypt::master::Master;
use crate::error::Result;
use crate::repository::grant::{Standing, State, Subject, Within, new_id};
use crate::snapshot::grants;

/// Grants to other accounts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let another account read one snapshot, or those of a cluster, and nothing else.
    Add(Box<AddArgs>),
    /// List grants as the bucket's policy and the ACLs of objects really have them.
    List {
        /// The bucket.
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Take a grant back: its statements or ACLs, then the wrap for their key.
    Revoke {
        /// The id of the grant.
        id: String,
        /// The bucket.
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}

/// What is granted, and to whom.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The name of the snapshot.
    #[arg(required_unless_present = "cluster")]
    snapshot: Option<String>,
    /// All snapshots of this cluster, now and later. Whoever reads them needs the key file.
    #[arg(long, value_name = "CLUSTER", conflicts_with_all = ["snapshot", "key", "grantee_kms_key"])]
    cluster: Option<String>,
    #[command(flatten)]
    who: Who,
    /// Say it by the ACLs of the snapshot's objects instead of the bucket's policy. They can read the objects then, but not list them.
    #[arg(long, requires = "canonical_id", conflicts_with = "cluster")]
    acl: bool,
    /// A key of theirs that opens the snapshot as well, so that ours is not given away: a public key (x25519:…, see `backupd key public`),
    /// or a key file, of which the active key is taken.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Or their key of AWS KMS, by its ARN, with which we may encrypt.
    #[arg(long, value_name = "ARN", conflicts_with = "key")]
    grantee_kms_key: Option<String>,
    /// Where their KMS is.
    #[arg(long, value_name = "URL", requires = "grantee_kms_key")]
    grantee_kms_endpoint: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// Who may read.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Who {
    /// An account: 123456789012.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// A user or role: `arn:aws:iam::123456789012:role/restore`.
    #[arg(long, value_name = "ARN")]
    principal: Option<String>,
    /// An account by its canonical id.
    #[arg(long, value_name = "ID")]
    canonical_id: Option<String>,
}

impl AddArgs {
    /// The key of theirs.
    async fn theirs(&self) -> Result<Option<Master>> {
        Ok(match (&self.key, &self.grantee_kms_key) {
            (Some(key), _) if key.starts_with("x25519:") => Some(Master::Public(key.parse()?)),
            (Some(file), _) => Some(Master::File(Keyring::read(Path::new(file))?.active()?.clone())),
            (None, Some(key)) => {
                let kms = Kms::new(key, self.grantee_kms_endpoint.as_deref())?;
                Some(Master::Kms(kms.key().await?.clone()))
            }
            (None, None) => None,
        })
    }
}

impl Who {
    fn principal(self) -> Principal {
        let account = self.account.map(Principal::Account);
        let canonical = self.canonical_id.map(Principal::CanonicalId);
        // one of them is there, as the command line demands; an empty account is refused
        account.or(self.principal.map(Principal::Arn)).or(canonical).unwrap_or(Principal::Account(String::new()))
    }
}

/// Runs a grant command.
///
/// # Errors
/// `Refused` for what cannot be granted safely, `NotFound` for what there is not, and what the store says.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    match command {
        Command::Add(args) => add(*args, context, output).await,
        Command::List { repository } => {
            let reached = repository.reach(context)?;
            let standing = reached.repository().await?.grants(&reached.keys, Within::Everything).await?;
            output.result(&json!({"grants": standing}), |_| list_text(&standing))
        }
        Command::Revoke { id, repository } => {
            let reached = repository.reach(context)?;
            let repository = reached.repository().await?;
            let ledger = Ledger::lenient(reached.catalog.as_ref()).await;
            let revoking = repository.revoke_grant(&id, None, &reached.keys);
            let scope = ledger.around("grant.revoke", &id, "", Box::pin(revoking)).await?;
            if let Some(catalog) = ledger.catalog() {
                grants::revoked(catalog, &repository, &id, scope.as_ref()).await;
            }
            let snapshot = scope.as_ref().and_then(Scope::snapshot);
            output.result(&json!({"grant_id": id, "snapshot": snapshot, "revoked": true}), |_| {
                format!("grant {id} is taken back: what was read by it before cannot be taken back")
            })
        }
    }
}

async fn add(args: AddArgs, context: &Context, output: Output) -> Result<()> {
    let reached = args.repository.reach(context)?;
    let repository = reached.repository().await?;
    let theirs = args.theirs().await?;
    let (subject, name) = match (args.snapshot, args.cluster) {
        (_, Some(cluster)) => (Subject::Cluster(cluster.clone()), format!("cluster {cluster}")),
        (snapshot, None) => {
            let name = snapshot.unwrap_or_default();
            (Subject::Snapshot(name.clone()), format!("snapshot {name}"))
        }
    };
    let (principal, way) = (args.who.principal(), if args.acl { Way::Acl } else { Way::Policy });
    let whom = who_text(&principal);
    let ledger = Ledger::strict(reached.catalog.as_ref()).await?;
    let given = repository.grant(new_id()?, &subject, (principal, way), theirs.as_ref(), &reached.keys);
    let done = ledger.around("grant.add", &name, &format!("to {whom}"), Box::pin(given)).await;
    if let Some(catalog) = ledger.catalog() {
        grants::given(catalog, &repository, &subject, &done).await;
    }
    let standing = done?;
    output.result(&standing, |standing| {
        let key = match (&standing.key_id, &standing.kms_key) {
            (Some(key_id), _) => format!("their key {key_id} opens it"),
            (None, Some(kms_key)) => format!("they may open it with {kms_key}"),
            (None, None) => "it is readable to them as it is: where it is encrypted they need a key of ours".to_owned(),
        };
        format!("grant {}: {whom} may read {name}; {key}", standing.grant_id)
    })
}

fn who_text(principal: &Principal) -> String {
    match principal {
        Principal::Account(id) => format!("account {id}"),
        Principal::Arn(arn) => arn.clone(),
        Principal::CanonicalId(id) => format!("canonical id {id}"),
    }
}

fn list_text(standing: &[Standing]) -> String {
    if standing.is_empty() {
        return "nobody was granted anything".to_owned();
    }
    let rows = standing.iter().map(|one| {
        let state = match one.state {
            State::InForce => "in force",
            State::Changed => "changed by others",
            State::NotInPolicy => "not in the policy",
            State::NotInAcl => "in no ACL",
            State::PolicyOnly => "in the policy only",
            State::NotInKms => "not in KMS",
            State::KmsOnly => "in KMS only",
        };
        // of what only the policy knows, what it says
        let told =
            |member: &str| one.statements.first().and_then(|statement| statement.get(member)).map(Value::to_string);
        vec![
            one.grant_id.clone(),
            one.snapshot.clone().or_else(|| told("Resource")).unwrap_or_default(),
            one.principal.as_ref().map(who_text).or_else(|| told("Principal")).unwrap_or_default(),
            one.key_id.clone().or_else(|| one.kms_key.clone()).unwrap_or_default(),
            state.to_owned(),
        ]
    });
    table(&["grant", "snapshot", "who", "key", ""], rows)
}
