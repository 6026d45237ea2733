//! Requests on their way to an owner and answers on their way back, a whole batch with one wake-up.
//!
//! A serving thread owns one desk and a task that carries its post. Waking another thread costs a system call; within its own thread
//! it costs a push. So requests leave once per turn of the thread, all that became ready in it together, and the owner wakes one
//! task per thread and batch, which wakes the requests.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::sync::oneshot;

use crate::command::{Answer, Request};
use crate::thread::OwnerHandle;

/// Where an answer goes.
#[derive(Debug)]
pub enum Reply {
    /// To a request of a serving thread.
    Post(Arc<Postbox>, usize),
    /// To whoever waits alone: administration, tests.
    Oneshot(oneshot::Sender<Answer>),
    /// To nobody: the sender only wants the effect.
    Nobody,
}

/// One serving thread's box.
#[derive(Debug, Default)]
pub struct Postbox {
    inner: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    answers: Vec<(usize, Answer)>,
    carrier: Option<Waker>,
}

impl Postbox {
    fn put(&self, answers: &mut Vec<(usize, Answer)>) {
        let carrier = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.answers.append(answers);
            inner.carrier.take()
        };
        if let Some(carrier) = carrier {
            carrier.wake();
        }
    }
}

/// Hands a batch of answers out; those of one postbox together.
pub fn deliver(answers: &mut Vec<(Reply, Answer)>) {
    let mut open: Option<Arc<Postbox>> = None;
    let mut letters = Vec::new();
    for (reply, answer) in answers.drain(..) {
        match reply {
            Reply::Post(postbox, slot) => {
                if let Some(other) = open.take_if(|open| !Arc::ptr_eq(open, &postbox)) {
                    other.put(&mut letters);
                }
                letters.push((slot, answer));
                open.get_or_insert(postbox);
            }
            // Whoever no longer waits has gone; the decision stands all the same.
            Reply::Oneshot(sender) => drop(sender.send(answer)),
            Reply::Nobody => {}
        }
    }
    if let Some(postbox) = open {
        postbox.put(&mut letters);
    }
}

enum Waiting {
    Nothing,
    Asleep(Waker),
    Arrived(Answer),
    /// The answer was taken.
    Over,
    /// Nobody waits any more, but an answer will come.
    Abandoned,
}

/// The thread's side of its postbox: what leaves, and which request waits in which slot.
#[derive(Clone)]
pub struct Desk {
    postbox: Arc<Postbox>,
    slots: Rc<RefCell<Slab<Waiting>>>,
    outgoing: Rc<RefCell<Outgoing>>,
}

#[derive(Default)]
struct Outgoing {
    requests: Vec<(Arc<OwnerHandle>, Request, Reply)>,
    carrier: Option<Waker>,
}

impl Desk {
    /// A desk with an empty postbox. [`Desk::carry`] must run on the same thread for anything to leave or arrive.
    #[expect(clippy::new_without_default, reason = "a desk without its carrier is no default")]
    pub fn new() -> Self {
        Self { postbox: Arc::default(), slots: Rc::default(), outgoing: Rc::default() }
    }

    /// Puts a request on its way. The future ends with the owner's answer; where the owner takes no more, with `overloaded`.
    pub fn ask(&self, owner: &Arc<OwnerHandle>, request: Request) -> Awaited {
        let slot = self.slots.borrow_mut().insert(Waiting::Nothing);
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.requests.push((Arc::clone(owner), request, Reply::Post(Arc::clone(&self.postbox), slot)));
        if let Some(carrier) = outgoing.carrier.take() {
            carrier.wake();
        }
        Awaited { slots: Rc::clone(&self.slots), slot }
    }

    /// Carries requests out and answers in, for ever.
    pub async fn carry(self) {
        let receiving = self.clone().receive();
        let sending = self.send();
        tokio::join!(receiving, sending);
    }

    async fn send(self) {
        let mut requests = Vec::new();
        loop {
            std::future::poll_fn(|context| {
                let mut outgoing = self.outgoing.borrow_mut();
                if outgoing.requests.is_empty() {
                    outgoing.carrier = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            // Whatever else is ready on this thread goes into the same batch.
            tokio::task::yield_now().await;
            std::mem::swap(&mut self.outgoing.borrow_mut().requests, &mut requests);
            submit(&mut requests);
        }
    }

    async fn receive(self) {
        let mut answers = Vec::new();
        loop {
            std::future::poll_fn(|context| {
                let mut inner = self.postbox.inner.lock().unwrap_or_else(PoisonError::into_inner);
                if inner.answers.is_empty() {
                    inner.carrier = Some(context.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut inner.answers, &mut answers);
                Poll::Ready(())
            })
            .await;
            let mut slots = self.slots.borrow_mut();
            for (slot, answer) in answers.drain(..) {
                match std::mem::replace(&mut slots[slot], Waiting::Nothing) {
                    Waiting::Asleep(waker) => {
                        slots[slot] = Waiting::Arrived(answer);
                        waker.wake();
                    }
                    Waiting::Abandoned => drop(slots.remove(slot)),
                    Waiting::Nothing | Waiting::Arrived(_) | Waiting::Over => slots[slot] = Waiting::Arrived(answer),
                }
            }
        }
    }
}

/// Submits requests, those of one owner that stand together with one lock.
fn submit(requests: &mut Vec<(Arc<OwnerHandle>, Request, Reply)>) {
    let mut refused = Vec::new();
    let mut open: Option<Arc<OwnerHandle>> = None;
    let mut letters = Vec::new();
    for (owner, request, reply) in requests.drain(..) {
        if let Some(other) = open.take_if(|open| !Arc::ptr_eq(open, &owner)) {
            other.submit_all(&mut letters, &mut refused);
        }
        letters.push((request, reply));
        open.get_or_insert(owner);
    }
    if let Some(owner) = open {
        owner.submit_all(&mut letters, &mut refused);
    }
    deliver(&mut refused);
}

/// An answer that has not arrived.
pub struct Awaited {
    slots: Rc<RefCell<Slab<Waiting>>>,
    slot: usize,
}

impl Future for Awaited {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut slots = self.slots.borrow_mut();
        match std::mem::replace(&mut slots[self.slot], Waiting::Over) {
            Waiting::Arrived(answer) => Poll::Ready(answer),
            Waiting::Nothing | Waiting::Asleep(_) | Waiting::Over | Waiting::Abandoned => {
                slots[self.slot] = Waiting::Asleep(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut slots = self.slots.borrow_mut();
        match slots[self.slot] {
            Waiting::Over | Waiting::Arrived(_) => drop(slots.remove(self.slot)),
            // The owner will still answer; the carrier frees the slot then.
            Waiting::Nothing | Waiting::Asleep(_) | Waiting::Abandoned => slots[self.slot] = Waiting::Abandoned,
        }
    }
}
