use super::*;

const JOB: Job = Job {
    kind: Kind::Backup,
    state: State::Running,
    step: Some(Step::Capture),
    attempts: 1,
    is_cancel_wanted: false,
    start_by_unix_ms: None,
};

fn events() -> Vec<Event> {
    let fails = [true, false].map(|retryable| Event::Fail { retryable });
    let rest =
        [Event::Claim, Event::Finish, Event::HandBack, Event::LeaseLost, Event::Cancel, Event::Stopped, Event::Late];
    Step::ALL.map(|step| Event::Begin { step }).into_iter().chain(fails).chain(rest).collect()
}

#[test]
fn what_has_ended_stays_as_it_is() {
    for state in State::ALL.into_iter().filter(|state| state.is_final()) {
        for event in events() {
            assert!(next(&Job { state, ..JOB }, event, 0).is_err(), "{state:?} {event:?}");
        }
    }
}

#[test]
fn only_a_queued_job_is_claimed_and_only_in_its_time() {
    let queued = Job { state: State::Queued, step: None, start_by_unix_ms: Some(10), ..JOB };
    assert_eq!(next(&queued, Event::Claim, 10).unwrap().to, State::Running);
    assert!(next(&queued, Event::Claim, 11).is_err());
    assert!(next(&queued, Event::Late, 10).is_err());
    assert_eq!(next(&queued, Event::Late, 11).unwrap().to, State::Failed);
    assert!(next(&Job { is_cancel_wanted: true, ..queued }, Event::Claim, 1).is_err());
    assert!(next(&JOB, Event::Claim, 1).is_err());
}

#[test]
fn steps_go_forward_and_all_of_them_are_needed() {
    for kind in Kind::ALL {
        let mut job = Job { kind, step: None, ..JOB };
        for step in kind.steps() {
            assert!(next(&job, Event::Finish, 0).is_err());
            assert_eq!(next(&job, Event::Begin { step: *step }, 0).unwrap().to, State::Running);
            job.step = Some(*step);
        }
        assert_eq!(next(&job, Event::Finish, 0).unwrap().to, State::Succeeded);
        let first = kind.steps()[0];
        assert!(next(&job, Event::Begin { step: first }, 0).is_err(), "{kind:?} goes back");
    }
    assert!(next(&JOB, Event::Begin { step: Step::Delete }, 0).is_err());
}

#[test]
fn failures_are_tried_again_with_growing_waits_up_to_a_limit() {
    let fail = |attempts, retryable| next(&Job { attempts, ..JOB }, Event::Fail { retryable }, 100).unwrap();
    assert_eq!((fail(1, true).to, fail(1, true).not_before_unix_ms), (State::Queued, 5_100));
    assert_eq!(fail(3, true).not_before_unix_ms, 20_100);
    assert_eq!(fail(ATTEMPTS_MAX, true).to, State::Failed);
    assert_eq!(fail(1, false).to, State::Failed);
    assert_eq!(wait_ms(u32::MAX), RETRY_MAX_MS);
}

#[test]
fn a_worker_that_died_costs_an_attempt_and_one_that_hands_back_does_not() {
    let lost = next(&Job { start_by_unix_ms: Some(1), ..JOB }, Event::LeaseLost, 100).unwrap();
    assert_eq!((lost.to, lost.not_before_unix_ms, lost.counts), (State::Queued, 100, true));
    let last = |kind, attempts| next(&Job { kind, attempts, ..JOB }, Event::LeaseLost, 0).unwrap().to;
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Backup) {
        assert_eq!(last(kind, ATTEMPTS_MAX), State::Failed, "{kind:?}");
    }
    // what a backup published is noted, though its last worker died before it could
    assert_eq!(last(Kind::Backup, ATTEMPTS_MAX), State::Queued);
    assert!(only_looks(ATTEMPTS_MAX + 1) && !only_looks(ATTEMPTS_MAX));
    assert_eq!(last(Kind::Backup, ATTEMPTS_MAX + 1), State::Failed);
    let back = next(&JOB, Event::HandBack, 7).unwrap();
    assert_eq!((back.to, back.counts), (State::Queued, false));
}

#[test]
fn cancel_works_until_something_cannot_be_undone() {
    assert_eq!(next(&Job { state: State::Queued, ..JOB }, Event::Cancel, 0).unwrap().to, State::Canceled);
    for (kind, step, may) in [
        (Kind::Backup, None, true),
        (Kind::Backup, Some(Step::Capture), true),
        (Kind::Backup, Some(Step::Record), false),
        (Kind::Verify, Some(Step::Verify), true),
        (Kind::Delete, Some(Step::Delete), false),
        (Kind::Remove, Some(Step::Capture), true),
        (Kind::Remove, Some(Step::Remove), false),
        (Kind::Copy, Some(Step::Copy), true),
        (Kind::Export, Some(Step::Export), true),
        (Kind::Restore, Some(Step::Restore), true),
        (Kind::Keep, Some(Step::Keep), false),
    ] {
        assert_eq!(next(&Job { kind, step, ..JOB }, Event::Cancel, 0).is_ok(), may, "{kind:?} {step:?}");
    }
    let wanted = Job { is_cancel_wanted: true, ..JOB };
    for event in [Event::Stopped, Event::HandBack, Event::LeaseLost, Event::Fail { retryable: true }] {
        assert_eq!(next(&wanted, event, 0).unwrap().to, State::Canceled, "{event:?}");
    }
    assert!(next(&JOB, Event::Stopped, 0).is_err());
}

/// Whatever happens in whatever order, a job ends in bounded time, and never leaves its end.
#[test]
fn no_sequence_of_failures_runs_for_ever() {
    for (last, most) in [(Event::LeaseLost, ATTEMPTS_MAX + 1), (Event::Fail { retryable: true }, ATTEMPTS_MAX)] {
        let (mut job, mut now, mut claims) = (Job { state: State::Queued, attempts: 0, step: None, ..JOB }, 0, 0);
        while !job.state.is_final() {
            now += RETRY_MAX_MS;
            let event = if job.state == State::Queued { Event::Claim } else { last };
            claims += u32::from(event == Event::Claim);
            job.attempts += u32::from(event == Event::Claim);
            job.state = next(&job, event, now).unwrap().to;
        }
        assert_eq!((claims, job.state), (most, State::Failed));
    }
}

#[test]
fn names_can_be_read_again() {
    assert!(Kind::ALL.iter().all(|kind| Kind::of(kind.as_str()) == Some(*kind)));
    assert!(State::ALL.iter().all(|state| State::of(state.as_str()) == Some(*state)));
    assert_eq!((Kind::of("x"), State::of("x")), (None, None));
}
