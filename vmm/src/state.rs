//! Where a machine is in its life: one enum, one table.
//!
//! ```text
//!             Start            Pause
//!   Created --------> Running --------> Paused
//!      |                 |    <--------    |
//!      |                 |     Resume      |
//!      |      Stop       v       Stop      |
//!      +-----------> Stopped <-------------+
//! ```
//!
//! `Stop` here is the machine having stopped (every thread joined), not somebody asking for
//! it: between the two the machine is still `Running` or `Paused`.

use std::fmt;

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Built; no guest instruction was executed yet.
    Created,
    /// The vCPUs execute guest code.
    Running,
    /// No vCPU executes guest code and no device touches guest memory.
    Paused,
    /// Over: every thread of the machine has ended.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        })
    }
}

/// What moves a machine from one [`State`] to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    Pause,
    Resume,
    Stop,
}

impl Step {
    /// The verb, for messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Step::Start => "run",
            Step::Pause => "pause",
            Step::Resume => "resume",
            Step::Stop => "stop",
        }
    }
}

impl State {
    /// The transition table: where `step` leads, or `None` where it is not allowed.
    pub(crate) const fn after(self, step: Step) -> Option<State> {
        match (self, step) {
            (State::Created, Step::Start) => Some(State::Running),
            (State::Running | State::Paused, Step::Pause) => Some(State::Paused),
            (State::Running | State::Paused, Step::Resume) => Some(State::Running),
            (_, Step::Stop) => Some(State::Stopped),
            (State::Created, Step::Pause | Step::Resume)
            | (State::Running | State::Paused, Step::Start)
            | (State::Stopped, Step::Start | Step::Pause | Step::Resume) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State::{Created, Paused, Running, Stopped};
    use super::Step;

    #[test]
    fn every_pair_of_state_and_step_leads_where_the_diagram_says() {
        let table = [
            (Created, Step::Start, Some(Running)),
            (Created, Step::Pause, None),
            (Created, Step::Resume, None),
            (Created, Step::Stop, Some(Stopped)),
            (Running, Step::Start, None),
            (Running, Step::Pause, Some(Paused)),
            (Running, Step::Resume, Some(Running)),
            (Running, Step::Stop, Some(Stopped)),
            (Paused, Step::Start, None),
            (Paused, Step::Pause, Some(Paused)),
            (Paused, Step::Resume, Some(Running)),
            (Paused, Step::Stop, Some(Stopped)),
            (Stopped, Step::Start, None),
            (Stopped, Step::Pause, None),
            (Stopped, Step::Resume, None),
            (Stopped, Step::Stop, Some(Stopped)),
        ];

        for (from, step, to) in table {
            assert_eq!(from.after(step), to, "{from} + {step:?}");
        }
    }
}
