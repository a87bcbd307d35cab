//! `GetCallerIdentity` of STS: clients ask it to see whether their credentials are good.

use crate::api::query::call::{ACCOUNT, Call};
use crate::api::query::xml::Writer;

pub(super) fn get(call: &Call<'_>, out: &mut Writer) {
    let name = call.caller.name.replace(':', "/");
    out.text("Arn", &format!("arn:aws:iam::{ACCOUNT}:user/{name}"));
    out.text("UserId", &call.caller.name);
    out.text("Account", ACCOUNT);
}
