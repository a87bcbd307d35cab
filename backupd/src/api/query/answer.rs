//! From a request to its answer: who asks, what for, and XML whatever happens.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use policies::access::Principal;

use super::actions;
use super::call::Call;
use super::check::{VERSION, VERSION_STS};
use super::error::{Code, Fault};
use super::form::{FORM_BYTES_MAX, Form};
use super::tagging;
use super::xml::{self, Service, Writer};
use crate::api::{Api, auth};
use crate::clock;

/// The region that is told where the caller names none.
const REGION: &str = "us-east-1";

/// Answers `POST /`.
pub async fn answer(State(api): State<Api>, request: Request) -> Response {
    let request_id = request_id();
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, FORM_BYTES_MAX).await {
        Ok(body) => body,
        Err(_) => {
            return refused(
                Service::ElastiCache,
                &Fault::new(Code::RequestTooLarge, "The form is too long."),
                &request_id,
            );
        }
    };
    if parts.method != Method::POST {
        let fault = Fault::new(Code::InvalidAction, "Requests are sent by POST, with a form as the body.");
        return refused(Service::ElastiCache, &fault, &request_id);
    }
    let (principal, region) = match auth::signed(&api, &parts, &body) {
        Ok(known) => known,
        Err(fault) => return refused(Service::ElastiCache, &fault, &request_id),
    };
    let region = region.unwrap_or_else(|| REGION.to_owned());
    if let Some(action) = tagging::action(&parts.headers).map(str::to_owned) {
        return tags(api, principal, region, action, body, &request_id).await;
    }
    // a task of its own: what panics is an answer too, and who hangs up stops nothing in the middle
    let work = tokio::spawn(async move { carry_out(&api, &principal, &region, &body).await });
    match work.await {
        Ok(Done { service, action, result: Ok(result) }) => {
            document(StatusCode::OK, xml::success(service, &action, &request_id, &result), &request_id)
        }
        Ok(Done { service, result: Err(fault), .. }) => refused(service, &fault, &request_id),
        Err(error) => {
            tracing::error!(error = %error, request_id, "a request of the Query API failed");
            refused(Service::ElastiCache, &Fault::new(Code::InternalFailure, "The request failed."), &request_id)
        }
    }
}

/// Answers what is asked of the service for tags, in a task of its own as well.
async fn tags(api: Api, who: Principal, region: String, action: String, body: Bytes, request_id: &str) -> Response {
    let work = tokio::spawn(async move {
        admit(&api, &who)?;
        let form = Form::default();
        let call = call(&api, &who, &region, &form).await?;
        tagging::run(&action, &call, &body).await
    });
    let result = work.await.unwrap_or_else(|error| {
        tracing::error!(error = %error, request_id, "a request for tags failed");
        Err(Fault::new(Code::InternalFailure, "The request failed."))
    });
    tagging::document(result, request_id)
}

/// Goes on when the caller has not asked too often.
fn admit(api: &Api, caller: &Principal) -> Result<(), Fault> {
    if api.admits(&caller.name) { Ok(()) } else { Err(Fault::new(Code::Throttling, "Rate exceeded")) }
}

/// A request, with what it is answered from.
async fn call<'a>(api: &'a Api, caller: &'a Principal, region: &'a str, form: &'a Form) -> Result<Call<'a>, Fault> {
    let query = api.query();
    query.definitions.refresh().await?;
    let (config, now_ms) = (query.services.config(), query.services.catalog.now_unix_ms().await?);
    Ok(Call { query, caller, form, region, config, now_ms })
}

/// What became of a request.
struct Done {
    service: Service,
    action: String,
    result: Result<Writer, Fault>,
}

async fn carry_out(api: &Api, principal: &Principal, region: &str, body: &[u8]) -> Done {
    let form = match Form::parse(body) {
        Ok(form) => form,
        Err(fault) => return Done { service: Service::ElastiCache, action: String::new(), result: Err(fault) },
    };
    let action = form.said("Action").unwrap_or_default().to_owned();
    let service = if action == "GetCallerIdentity" { Service::Sts } else { Service::ElastiCache };
    let result = checked(api, principal, region, &form, &action, service).await;
    if let Err(fault) = &result {
        tracing::debug!(action, who = principal.name, code = fault.code.row().0, "refused: {}", fault.message);
    }
    Done { service, action, result }
}

async fn checked(
    api: &Api,
    principal: &Principal,
    region: &str,
    form: &Form,
    action: &str,
    service: Service,
) -> Result<Writer, Fault> {
    admit(api, principal)?;
    if action.is_empty() {
        return Err(Fault::new(Code::MissingAction, "The request must contain the parameter Action."));
    }
    let version = if service == Service::Sts { VERSION_STS } else { VERSION };
    if form.said("Version").is_some_and(|given| given != version) {
        return Err(actions::unknown(action));
    }
    let call = call(api, principal, region, form).await?;
    let mut out = Writer::default();
    Box::pin(actions::run(action, &call, &mut out)).await?;
    Ok(out)
}

/// Makes XML of what the layers around this one refuse.
pub async fn layer(request: Request, next: Next) -> Response {
    let is_ours = request.uri().path() == "/";
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !is_ours || kind.is_some_and(|kind| kind == XML.as_bytes() || kind == tagging::JSON.as_bytes()) {
        return response;
    }
    let (code, message) = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => (Code::RequestTooLarge, "The body is too large."),
        StatusCode::REQUEST_TIMEOUT => (Code::RequestTimeout, "The body did not come in time."),
        StatusCode::TOO_MANY_REQUESTS => (Code::Throttling, "Rate exceeded"),
        StatusCode::BAD_REQUEST => (Code::MalformedQueryString, "The body ended before its time."),
        StatusCode::SERVICE_UNAVAILABLE => (Code::ServiceUnavailable, "Too many requests at the same time."),
        _ => (Code::InternalFailure, "The request failed."),
    };
    refused(Service::ElastiCache, &Fault::new(code, message), &request_id())
}

const XML: &str = "text/xml";

fn refused(service: Service, fault: &Fault, request_id: &str) -> Response {
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    document(status, xml::failure(service, fault, request_id), request_id)
}

fn document(status: StatusCode, text: String, request_id: &str) -> Response {
    let mut response = (status, [(header::CONTENT_TYPE, XML)], text).into_response();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

/// A random UUID; of the time alone where there is no randomness.
fn request_id() -> String {
    let mut bytes: [u8; 16] =
        crate::crypt::random().unwrap_or_else(|_| u128::from(clock::unix_ms(clock::now())).to_be_bytes());
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = 0x40 | (*version & 0x0f);
    *variant = 0x80 | (*variant & 0x3f);
    let text = hex::encode(bytes);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
