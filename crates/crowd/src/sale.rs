//! What everybody's page shows of the sale: one shared poll instead of one per shopper. It reads and never buys.

use std::rc::Rc;
use std::time::Duration;

use domain::ChainTime;
use http::Request;
use http_body_util::Full;
use serde::Deserialize;

use crate::http::{HttpError, Reply};
use crate::run::Crowd;

/// Bounds of the server's wish for the next poll, in milliseconds.
const POLL_MILLISECONDS: std::ops::RangeInclusive<u64> = 100..=2_000;

/// Whether one can buy now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Available {
    Yes,
    No,
    MayReturn,
}

#[derive(Deserialize)]
pub(crate) struct SaleView {
    phase: String,
    pub(crate) opens_at: ChainTime,
    next_poll_ms: u64,
    items: Vec<ItemView>,
}

#[derive(Deserialize)]
struct ItemView {
    item: String,
    available: Available,
}

impl SaleView {
    /// Reads the answer of `GET /v1/sales/{sale}`.
    pub(crate) fn read(reply: &Reply) -> Result<Self, String> {
        if reply.status != 200 {
            return Err(crate::answer::sample("the sale was not shown", reply));
        }
        serde_json::from_slice(&reply.body).map_err(|error| crate::answer::sample(&error.to_string(), reply))
    }

    /// Whether the item can be bought now; `None` when the sale does not have it.
    pub(crate) fn available(&self, item: &str) -> Option<Available> {
        let shown = self.items.iter().find(|shown| shown.item == item)?.available;
        let over = self.phase == "closed" || self.phase == "settled";
        Some(if over { Available::No } else { shown })
    }
}

/// Keeps the shared view fresh until the crowd has gone. A poll that fails leaves the last view standing.
pub(crate) async fn watch(crowd: Rc<Crowd>) {
    loop {
        let wait = crowd.view.borrow().next_poll_ms.clamp(*POLL_MILLISECONDS.start(), *POLL_MILLISECONDS.end());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        match poll(&crowd).await.map(|reply| SaleView::read(&reply)) {
            Ok(Ok(view)) => *crowd.view.borrow_mut() = view,
            Ok(Err(complaint)) => crowd.tally.borrow_mut().protocol_error(complaint),
            Err(error) => crowd.tally.borrow_mut().failed(error.kind()),
        }
    }
}

async fn poll(crowd: &Crowd) -> Result<Reply, HttpError> {
    let lease = crowd.public.lease().await?;
    let path = format!("/v1/sales/{}", crowd.options.sale);
    let request = Request::get(path).header(http::header::HOST, crowd.public.host()).body(Full::default())?;
    lease.exchange(request, crowd.options.reply_time_max()).await
}
