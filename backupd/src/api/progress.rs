//! The progress of a job as it comes (server-sent events).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::auth::Caller;
use super::extract::Path;
use super::jobs::find;
use super::problem::Problem;
use crate::service::jobs::JobView;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The longest that one stream lasts; the client may come again.
const STREAM_MAX: Duration = Duration::from_secs(3600);

/// Events that wait for a slow client.
const WAITING_MAX: usize = 4;

/// The progress of a job as it comes: an event `job` with the job whenever it changed, the last one when it has ended.
#[utoipa::path(get, path = "/v1/jobs/{job}/events", tag = "jobs", params(("job" = String, Path, description = "Its id")),
    responses((status = 200, content_type = "text/event-stream", body = String)),
    extensions(("x-action" = json!("job.read"))))]
pub(super) async fn watch(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path,
) -> Result<impl IntoResponse, Problem> {
    find(&api, &caller, &id).await?;
    let place = Arc::clone(&api.inner.streams).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "too many jobs are watched"))?;
    let (sender, events) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        tell(&api, &id, &sender).await;
        drop(place);
    });
    Ok(Sse::new(ReceiverStream::new(events)).keep_alive(KeepAlive::default()))
}

async fn tell(api: &Api, id: &str, sender: &mpsc::Sender<Result<Event, Infallible>>) {
    let end = Instant::now() + STREAM_MAX;
    let mut told = String::new();
    while Instant::now() < end {
        // a catalog that is away for a moment is no end
        if let Ok(row) = api.services().catalog.job(id).await {
            let is_final = row.state().is_final();
            let text = serde_json::to_string(&JobView::from(row)).unwrap_or_default();
            if text != told && sender.send(Ok(Event::default().event("job").data(&text))).await.is_err() {
                return;
            }
            told = text;
            if is_final {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = sender.closed() => return,
            () = api.inner.stop.cancelled() => return,
        }
    }
}
