//! Follows a layout step by step.

use crate::value::DEPTH_MAX;

/// Steps that are being followed, and how often they are to be followed again.
#[derive(Debug, Clone, Copy)]
struct Frame<O: 'static> {
    steps: &'static [O],
    todo: &'static [O],
    left: u64,
}

/// Where a reader stands in a layout of steps `O`. Its stack is as deep as the deepest layout and does not grow with
/// input.
#[derive(Debug)]
pub(crate) struct Machine<O: 'static> {
    frame: Frame<O>,
    stack: Vec<Frame<O>>,
}

impl<O> Default for Machine<O> {
    fn default() -> Self {
        Self { frame: Frame { steps: &[], todo: &[], left: 0 }, stack: Vec::with_capacity(DEPTH_MAX) }
    }
}

impl<O: Copy> Machine<O> {
    /// Begins a layout.
    #[inline]
    pub(crate) fn start(&mut self, steps: &'static [O]) {
        self.stack.clear();
        self.frame = Frame { steps, todo: steps, left: 0 };
    }

    /// The step to do; `None` at the end of the layout.
    #[inline]
    pub(crate) fn step(&mut self) -> Option<O> {
        loop {
            if let Some(op) = self.frame.todo.first() {
                return Some(*op);
            }
            if self.frame.left > 0 {
                self.frame.left -= 1;
                self.frame.todo = self.frame.steps;
            } else {
                self.frame = self.stack.pop()?;
            }
        }
    }

    /// The step is done.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.frame.todo = self.frame.todo.get(1..).unwrap_or_default();
    }

    /// The step is done and its inner steps follow, `count` times.
    #[inline]
    pub(crate) fn repeat(&mut self, steps: &'static [O], count: u64) {
        self.advance();
        if let Some(left) = count.checked_sub(1) {
            self.stack.push(self.frame);
            self.frame = Frame { steps, todo: steps, left };
        }
    }
}
