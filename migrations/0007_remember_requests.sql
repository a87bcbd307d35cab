-- Requests that are done at once, and so are no jobs, under the keys of their callers: asking twice is asking once.

CREATE TABLE requests (
    -- Who asked, and the caller's own key for the request.
    requested_by TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    -- The digest of what was asked.
    request_sha256 TEXT NOT NULL,
    -- The id of what it makes, chosen before anything is done: who asks again after a crash goes on with the same one.
    made_id TEXT NOT NULL,
    asked_ms BIGINT NOT NULL,
    -- When it was done, or taken back: from then on it is only told.
    done_ms BIGINT,
    PRIMARY KEY (requested_by, idempotency_key)
);

CREATE INDEX requests_by_made ON requests (made_id);
CREATE INDEX requests_by_time ON requests (asked_ms);
