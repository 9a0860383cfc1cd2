//! The tasks of a reactor: futures that its thread polls, and the queue of those that can run.
//!
//! A task's waker is its number and nothing else, so to wake costs a push to a queue, and no allocation and no atomic. It is
//! good on its own thread alone. Another thread reaches a reactor through the waker of its main future
//! ([`Remote`](super::remote::Remote)).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::prefetch::{LINE_BYTES, prefetch_lines};

/// The number of a task; numbers are used again. A wake-up that comes late polls whoever has the number now, which does no
/// harm: a future that is polled looks again.
pub type TaskId = u32;

/// How many tasks run before one that the CPU is asked for: enough that it has come by then.
const PREFETCH_AHEAD: usize = 1;
/// Most bytes of a task that the CPU is asked for: those that every request meets.
const PREFETCH_MAX_BYTES: usize = 6 * LINE_BYTES;

/// No task.
pub const NOBODY: TaskId = TaskId::MAX;

#[derive(Default)]
struct Ready {
    queue: RefCell<VecDeque<TaskId>>,
    /// By task: whether it stands in the queue.
    is_queued: RefCell<Vec<bool>>,
    current: Cell<TaskId>,
    /// The reactor of this thread; 0 is none.
    reactor: Cell<u32>,
}

thread_local! {
    static READY: Ready = Ready::default();
}

static REACTORS: AtomicU32 = AtomicU32::new(0);

/// The queue of this thread is that of a new reactor from now on, and empty.
pub fn begin_thread() {
    READY.with(|ready| {
        ready.reactor.set(REACTORS.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
        ready.queue.borrow_mut().clear();
        ready.is_queued.borrow_mut().clear();
        ready.current.set(NOBODY);
    });
}

/// The task that is being polled; [`NOBODY`] for the main future.
#[inline]
pub fn current() -> TaskId {
    READY.with(|ready| ready.current.get())
}

/// Puts a task to the end of the queue, unless it stands there already.
#[inline]
pub fn make_ready(task: TaskId) {
    if task == NOBODY {
        return;
    }
    READY.with(|ready| {
        let mut is_queued = ready.is_queued.borrow_mut();
        let index = task as usize;
        if index >= is_queued.len() {
            is_queued.resize(index + 1, false);
        }
        if !std::mem::replace(&mut is_queued[index], true) {
            ready.queue.borrow_mut().push_back(task);
        }
    });
}

/// The first of the queue.
#[inline]
fn next_ready() -> Option<TaskId> {
    READY.with(|ready| {
        let task = ready.queue.borrow_mut().pop_front()?;
        ready.is_queued.borrow_mut()[task as usize] = false;
        Some(task)
    })
}

/// Whether a task can run.
#[inline]
pub fn is_any_ready() -> bool {
    READY.with(|ready| !ready.queue.borrow().is_empty())
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| {});

fn clone(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    let (reactor, task) = ((data.addr() >> 32) as u32, data.addr() as u32);
    let is_here = READY.with(|ready| ready.reactor.get() == reactor);
    assert!(is_here, "a task's waker is good on the task's own thread alone");
    make_ready(task);
}

fn waker(task: TaskId) -> Waker {
    let reactor = READY.with(|ready| ready.reactor.get());
    let data = std::ptr::without_provenance((reactor as usize) << 32 | task as usize);
    // SAFETY: the functions of the table take the pointer for two numbers and never follow it, so it is valid for as long as
    // anybody keeps it, on any thread.
    unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// All tasks of a reactor.
#[derive(Default)]
pub struct Tasks {
    /// `None`: the number is free, or its task is being polled.
    tasks: RefCell<Vec<Option<Task>>>,
    free: RefCell<Vec<TaskId>>,
}

impl Tasks {
    /// Adds a task; it runs for the first time when the queue comes to it.
    pub fn spawn(&self, task: Task) {
        let mut tasks = self.tasks.borrow_mut();
        let id = self.free.borrow_mut().pop().unwrap_or_else(|| {
            tasks.push(None);
            (tasks.len() - 1) as TaskId
        });
        tasks[id as usize] = Some(task);
        make_ready(id);
    }

    /// Polls those that can run, in order, also those that become ready meanwhile.
    pub fn run_ready(&self) {
        while let Some(id) = next_ready() {
            self.prefetch_ahead();
            let Some(mut task) = self.tasks.borrow_mut().get_mut(id as usize).and_then(Option::take) else { continue };
            READY.with(|ready| ready.current.set(id));
            let polled = task.as_mut().poll(&mut Context::from_waker(&waker(id)));
            READY.with(|ready| ready.current.set(NOBODY));
            match polled {
                Poll::Pending => self.tasks.borrow_mut()[id as usize] = Some(task),
                Poll::Ready(()) => {
                    drop(task);
                    self.free.borrow_mut().push(id);
                }
            }
        }
    }

    /// Asks the CPU for a task that will run soon. Of thousands of connections, the next one's is in none of its nearer caches.
    #[inline]
    fn prefetch_ahead(&self) {
        let Some(id) = READY.with(|ready| ready.queue.borrow().get(PREFETCH_AHEAD).copied()) else { return };
        if let Some(Some(task)) = self.tasks.borrow().get(id as usize) {
            let task: &dyn Future<Output = ()> = &**task;
            prefetch_lines((&raw const *task).cast(), size_of_val(task).min(PREFETCH_MAX_BYTES));
        }
    }

    /// Drops all tasks, also those that are added meanwhile.
    pub fn clear(&self) {
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                return;
            }
            self.free.borrow_mut().clear();
            drop(tasks);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_task_runs_when_it_is_woken_and_its_number_is_used_again() {
        begin_thread();
        let tasks = Tasks::default();
        let polls = Rc::new(Cell::new(0));
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let (seen, keeper) = (Rc::clone(&polls), Rc::clone(&kept));
        tasks.spawn(Box::pin(std::future::poll_fn(move |context| {
            seen.set(seen.get() + 1);
            *keeper.borrow_mut() = Some(context.waker().clone());
            if seen.get() == 3 { Poll::Ready(()) } else { Poll::Pending }
        })));
        tasks.run_ready();
        tasks.run_ready();
        assert_eq!(polls.get(), 1, "nobody has woken it");
        let waker = kept.take().expect("it has been polled");
        waker.wake_by_ref();
        waker.wake_by_ref();
        tasks.run_ready();
        assert_eq!(polls.get(), 2, "it stands in the queue once");
        waker.wake_by_ref();
        tasks.run_ready();
        assert_eq!(polls.get(), 3);
        waker.wake_by_ref();
        tasks.run_ready();
        assert_eq!(polls.get(), 3, "it has ended");
        tasks.spawn(Box::pin(async {}));
        assert_eq!(tasks.tasks.borrow().len(), 1);
        tasks.run_ready();
        assert!(!is_any_ready());
    }

    #[test]
    fn a_wake_up_from_another_thread_is_a_mistake() {
        begin_thread();
        let waker = waker(3);
        assert!(std::thread::spawn(move || waker.wake()).join().is_err());
        assert!(!is_any_ready());
    }
}
