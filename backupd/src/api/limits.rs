//! What a request may cost: bytes, time, how many at once, how many of one caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::{Instant, timeout, timeout_at};

use super::Api;
use super::bodies::Unread;
use super::crowd::Place;
use super::problem::Problem;

/// The most callers that are counted at the same time; callers are named in the configuration.
const CALLERS_MAX: usize = 4096;

/// Requests of each caller.
#[derive(Debug)]
pub struct Rates {
    per_second: f64,
    buckets: Mutex<HashMap<String, (Instant, f64)>>,
}

impl Rates {
    /// So many in a second; as many at once.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Counts a request of a caller. False when it is one too many.
    pub fn admits(&self, caller: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CALLERS_MAX {
            // who was not here for a second has a full bucket again
            buckets.retain(|_, (last, _)| now.duration_since(*last) < Duration::from_secs(1));
        }
        let (last, left) = buckets.entry(caller.to_owned()).or_insert((now, self.per_second));
        *left = (*left + now.duration_since(*last).as_secs_f64() * self.per_second).min(self.per_second);
        *last = now;
        let admitted = *left >= 1.0;
        if admitted {
            *left -= 1.0;
        }
        admitted
    }
}

/// Reads the body, then waits for its turn, then is answered: so a client that sends slowly takes nobody's turn.
pub(super) async fn layer(State(api): State<Api>, request: Request, next: Next) -> Response {
    let limits = &api.inner.limits;
    let deadline = Instant::now() + limits.request_time;
    let (parts, body) = request.into_parts();
    // the server reads a little more than its limit when all comes at once
    let head = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if head + parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > limits.header_bytes {
        let what = format!("the head of a request can have at most {} bytes", limits.header_bytes);
        return Problem::request(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what).into_response();
    }
    let too_large = || {
        let what = format!("a body can have at most {} bytes", limits.body_bytes);
        Problem::request(StatusCode::PAYLOAD_TOO_LARGE, what).into_response()
    };
    let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|bytes| usize::try_from(bytes).map_or(true, |bytes| bytes > limits.body_bytes)) {
        return too_large();
    }
    // the room that the body takes is given back with the answer
    let mut held = match timeout_at(deadline, api.inner.bodies.read(body)).await {
        Ok(Ok(held)) => held,
        Ok(Err(Unread::TooLarge)) => return too_large(),
        Ok(Err(Unread::NoRoom)) => {
            let what = "there is no room for another large body now";
            return Problem::busy(StatusCode::SERVICE_UNAVAILABLE, what).into_response();
        }
        Ok(Err(Unread::Broken)) => {
            return Problem::request(StatusCode::BAD_REQUEST, "the body ended before its time").into_response();
        }
        Err(_) => {
            return Problem::request(StatusCode::REQUEST_TIMEOUT, "the body did not come in time").into_response();
        }
    };
    let turn = timeout(limits.request_time / 2, api.inner.working.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "too many requests at the same time").into_response();
    };
    if let Some(place) = parts.extensions.get::<Arc<Place>>() {
        place.works();
    }
    let body = std::mem::take(&mut held.bytes);
    match timeout_at(deadline, next.run(Request::from_parts(parts, Body::from(body)))).await {
        Ok(response) => response,
        Err(_) => Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_requests_in_a_second_and_others_their_own() {
        let (rates, now) = (Rates::new(3), Instant::now());
        let five: Vec<bool> = (0..5).map(|_| rates.admits("a", now)).collect();
        assert_eq!(five, [true, true, true, false, false]);
        assert!(rates.admits("b", now));
        let later = now + Duration::from_millis(340);
        assert_eq!([rates.admits("a", later), rates.admits("a", later)], [true, false]);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| rates.admits("a", much_later)).count(), 3);
    }
}
