//! The same work on many things, on as many threads as there are cores.

use std::sync::Mutex;
use std::thread;

/// The most things that are worked on at the same time.
const THREADS_MAX: usize = 8;

/// What `work` makes of each, in order.
pub(crate) fn map<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(things.len()).min(THREADS_MAX);
    let queue = Mutex::new(things.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(things.len()));
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let run = || {
        while let Some((index, thing)) = next() {
            let made = work(thing);
            if let Ok(mut done) = done.lock() {
                done.push((index, made));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, made)| made).collect()
}
