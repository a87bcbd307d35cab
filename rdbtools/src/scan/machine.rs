//! Follows a layout step by step.

use crate::value::{DEPTH_MAX, Op};

/// Steps that are being followed, and how often they are to be followed again.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    steps: &'static [Op],
    todo: &'static [Op],
    left: u64,
}

/// Where a scanner stands in a layout. Its stack is as deep as the deepest layout and does not grow with input.
#[derive(Debug)]
pub(super) struct Machine {
    frame: Frame,
    stack: Vec<Frame>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { frame: Frame::default(), stack: Vec::with_capacity(DEPTH_MAX) }
    }
}

impl Machine {
    /// Begins a layout.
    #[inline]
    pub(super) fn start(&mut self, steps: &'static [Op]) {
        self.stack.clear();
        self.frame = Frame { steps, todo: steps, left: 0 };
    }

    /// The step to do; `None` at the end of the layout.
    #[inline]
    pub(super) fn step(&mut self) -> Option<Op> {
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
    pub(super) fn advance(&mut self) {
        self.frame.todo = self.frame.todo.get(1..).unwrap_or_default();
    }

    /// The step is done and its inner steps follow, `count` times.
    #[inline]
    pub(super) fn repeat(&mut self, steps: &'static [Op], count: u64) {
        self.advance();
        if let Some(left) = count.checked_sub(1) {
            self.stack.push(self.frame);
            self.frame = Frame { steps, todo: steps, left };
        }
    }
}
