//! A request beside the purchase: one that may be repeated, since it has one outcome however often it arrives.
//!
//! It asks until there is an answer. What the answer means for an order stands in `paying`.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use serde_json::Value;

use crate::answer::{self, Advice, Refused};
use crate::asking::Patience;
use crate::client::Pool;
use crate::http::{HttpError, Reply};
use crate::network::FORWARDED_FOR;
use crate::person::customer;
use crate::run::Crowd;

/// A POST without a body, unless it is made something else.
pub(crate) struct Call<'a> {
    crowd: &'a Crowd,
    pool: &'a Pool,
    method: Method,
    path: String,
    authorization: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    media_type: Option<&'static str>,
    body: Bytes,
}

impl<'a> Call<'a> {
    /// By the shop, at the admin listener.
    pub(crate) fn of_shop(crowd: &'a Crowd, path: String) -> Self {
        Self {
            pool: &crowd.admin,
            authorization: Some(crowd.admin_authorization.clone()),
            ..Self::of_anybody(crowd, path)
        }
    }

    /// By a customer, with their token.
    pub(crate) fn of_customer(crowd: &'a Crowd, shopper: u32, path: String) -> Self {
        Self {
            authorization: Some(crowd.authorization(&customer(shopper))),
            forwarded_for: crowd.forwarded_for(shopper),
            ..Self::of_anybody(crowd, path)
        }
    }

    /// By a browser that nobody has to know.
    pub(crate) fn of_anybody(crowd: &'a Crowd, path: String) -> Self {
        let (pool, method, body) = (&crowd.public, Method::POST, Bytes::new());
        Self { crowd, pool, method, path, authorization: None, forwarded_for: None, media_type: None, body }
    }

    /// Asks and changes nothing.
    pub(crate) fn get(self) -> Self {
        Self { method: Method::GET, ..self }
    }

    /// Brings JSON.
    pub(crate) fn json(self, body: &Value) -> Self {
        Self { media_type: Some("application/json"), body: body.to_string().into(), ..self }
    }

    /// Brings a form's fields.
    pub(crate) fn form(self, body: String) -> Self {
        Self { media_type: Some("application/x-www-form-urlencoded"), body: body.into(), ..self }
    }

    /// Asks once. `None`: nothing is known of the outcome.
    pub(crate) async fn once(&self) -> Option<Reply> {
        let reply = async {
            let lease = self.pool.lease().await?;
            let mut request = Request::builder().method(self.method.clone()).uri(self.path.as_str());
            request = request.header(header::HOST, self.pool.host());
            if let Some(authorization) = &self.authorization {
                request = request.header(header::AUTHORIZATION, authorization.clone());
            }
            if let Some(forwarded_for) = &self.forwarded_for {
                request = request.header(FORWARDED_FOR, forwarded_for.clone());
            }
            if let Some(media_type) = self.media_type {
                request = request.header(header::CONTENT_TYPE, media_type);
            }
            let request = request.body(Full::new(self.body.clone()))?;
            lease.exchange(request, self.crowd.options.reply_time_max()).await
        };
        reply.await.inspect_err(|error: &HttpError| self.crowd.tally.borrow_mut().failed(error.kind())).ok()
    }

    /// Asks until it is done. `None`: refused for good, or given up.
    pub(crate) async fn until_done(&self) -> Option<Reply> {
        let mut patience = Patience::new(self.crowd, tokio::time::Instant::now());
        loop {
            let told = match self.once().await {
                Some(reply) if (200..400).contains(&reply.status) => return Some(reply),
                Some(reply) => refusal(self.crowd, &reply),
                None => None,
            };
            if let Some(told) = &told {
                self.crowd.tally.borrow_mut().ending_refused(&told.code);
                if told.refusal.is_none_or(|refusal| answer::advice(refusal).0 != Advice::Repeat) {
                    return None;
                }
            }
            patience.wait(told.and_then(|told| told.retry_after)).await?;
        }
    }
}

/// Reads a refusal and complains of what is wrong with it.
pub(crate) fn refusal(crowd: &Crowd, reply: &Reply) -> Option<Refused> {
    let mut tally = crowd.tally.borrow_mut();
    match answer::read_refusal(reply) {
        Ok((refused, complaint)) => {
            complaint.into_iter().for_each(|complaint| tally.protocol_error(complaint));
            Some(refused)
        }
        Err(complaint) => {
            tally.protocol_error(complaint);
            None
        }
    }
}
