//! What becomes of a won order: the customer pays it, leaves the page or gives it back, and the shop gives some money back. Whoever
//! begins to pay looks at the order until all its money has its place.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::answer::sample;
use crate::asking::Patience;
use crate::call::Call;
use crate::http::Reply;
use crate::options::Checkout;
use crate::run::Crowd;
use crate::schedule::{Due, Errand, Manner, persona};

/// What somebody has won.
#[derive(Clone)]
pub(crate) struct Won {
    pub(crate) purchase: String,
    pub(crate) order: String,
}

/// An order as the engine shows it.
#[derive(Deserialize)]
struct Shown {
    status: String,
    #[serde(default)]
    payments: Vec<Payment>,
}

#[derive(Deserialize)]
struct Payment {
    attempt: u8,
    status: String,
}

impl Shown {
    fn has(&self, status: &str) -> bool {
        self.payments.iter().any(|payment| payment.status == status)
    }

    /// Nothing more will happen to it by itself.
    fn is_settled(&self) -> bool {
        self.status != "held" && !self.has("open") && !self.has("refund_due")
    }
}

/// Runs an errand about what the shopper has won.
pub(crate) async fn run_errand(crowd: &Crowd, shopper: u32, errand: Errand) {
    let Some(won) = crowd.shoppers.borrow_mut()[shopper as usize].won.take() else { return };
    let order = Order { crowd, shopper, won: &won };
    let _ = match errand {
        Errand::Pay => order.pay().await,
        Errand::Leave => order.leave().await,
        Errand::Cancel => order.cancel().await,
        Errand::Refund => order.refund().await,
        Errand::WarmUp | Errand::TakePass | Errand::Buy | Errand::LookAgain => None,
    };
}

/// Gives back what was won. `None` where that was refused, or nobody knows.
pub(crate) async fn give_back(crowd: &Crowd, shopper: u32, won: &Won) -> Option<()> {
    Order { crowd, shopper, won }.cancel().await
}

/// One order, in the hands of its customer and of the shop. Every step gives `None` where nobody could go on.
struct Order<'a> {
    crowd: &'a Crowd,
    shopper: u32,
    won: &'a Won,
}

impl Order<'_> {
    async fn pay(&self) -> Option<()> {
        let persona = persona(&self.crowd.options, self.shopper);
        let shown = match self.crowd.options.checkout {
            Checkout::Confirmed => self.shop("confirm").await?,
            Checkout::Reported => self.pay_at_the_shop(persona.manner).await?,
            Checkout::Provider => self.pay_at_the_page(persona.manner).await?,
        };
        self.count_refund(&shown);
        if shown.status == "confirmed" {
            self.crowd.tally.borrow_mut().paid += 1;
            self.crowd.note(|notes| notes.confirmed(&self.won.purchase));
            if persona.is_refunded {
                self.crowd.plan_ending(self.shopper, Errand::Refund, self.won.clone(), persona.decides_after);
            }
        }
        Some(())
    }

    /// The shop has a provider of its own and reports what becomes of each attempt there.
    async fn pay_at_the_shop(&self, manner: Manner) -> Option<Shown> {
        let mut attempt = self.begin().await?;
        match manner {
            Manner::Declined => {
                self.shop(&format!("payments/{attempt}/ended")).await?;
                attempt = self.begin().await?;
            }
            Manner::ToldTwice => drop(self.shop(&format!("payments/{attempt}/paid")).await?),
            Manner::Late(seconds) => sleep(Duration::from_secs(seconds)).await,
            Manner::Plain => {}
        }
        let shown = self.shop(&format!("payments/{attempt}/paid")).await?;
        self.give_back(shown).await
    }

    /// At the engine's provider: the customer is sent to its page, presses a button there, and looks at the order afterwards.
    async fn pay_at_the_page(&self, manner: Manner) -> Option<Shown> {
        if let Some(page) = self.page().await? {
            match manner {
                Manner::Plain => self.press(&page, "pay", "").await?,
                Manner::Declined => {
                    self.press(&page, "decline", "").await?;
                    sleep(self.crowd.milliseconds_between(300..=1_500)).await;
                    self.press(&page, "pay", "").await?;
                }
                Manner::ToldTwice => self.press(&page, "twice", "").await?,
                Manner::Late(seconds) => {
                    self.press(&page, "later", &format!("seconds={seconds}")).await?;
                    sleep(Duration::from_secs(seconds)).await;
                }
            }
        }
        // Whoever comes back from the page looks when the shop has probably heard of it.
        sleep(self.crowd.milliseconds_between(200..=800)).await;
        self.until_settled().await
    }

    /// Goes to pay and does not.
    async fn leave(&self) -> Option<()> {
        match self.crowd.options.checkout {
            Checkout::Confirmed => {}
            Checkout::Reported => {
                let attempt = self.begin().await?;
                self.shop(&format!("payments/{attempt}/ended")).await?;
            }
            Checkout::Provider => {
                if let Some(page) = self.page().await? {
                    self.press(&page, "never", "").await?;
                }
            }
        }
        Some(())
    }

    async fn cancel(&self) -> Option<()> {
        self.customer("cancel").until_done().await?;
        self.crowd.tally.borrow_mut().cancelled += 1;
        self.crowd.note(|notes| notes.cancelled(&self.won.purchase));
        Some(())
    }

    /// The shop gives back what was paid.
    async fn refund(&self) -> Option<()> {
        let shown = self.shop("refund").await?;
        let shown = match self.crowd.options.checkout {
            Checkout::Confirmed | Checkout::Reported => self.give_back(shown).await?,
            Checkout::Provider => self.until_settled().await?,
        };
        self.count_refund(&shown);
        Some(())
    }

    fn count_refund(&self, shown: &Shown) {
        self.crowd.tally.borrow_mut().refunded += u64::from(shown.has("refunded"));
    }

    /// The shop's provider has given back whatever was due.
    async fn give_back(&self, mut shown: Shown) -> Option<Shown> {
        while let Some(payment) = shown.payments.iter().find(|payment| payment.status == "refund_due") {
            shown = self.shop(&format!("payments/{}/refunded", payment.attempt)).await?;
        }
        Some(shown)
    }

    /// Gives the number of the attempt that is open.
    async fn begin(&self) -> Option<u8> {
        self.shop("payments").await?.payments.last().map(|payment| payment.attempt)
    }

    /// The page's path; no path where nothing has to be paid.
    async fn page(&self) -> Option<Option<String>> {
        let reply = self.customer("payments").json(&json!({ "return_url": "/" })).until_done().await?;
        let shown = reply.json();
        let Some(url) = shown["pay_url"].as_str() else { return Some(None) };
        // A crowd is never aimed at another machine, whatever a server says.
        let host = self.crowd.public.host();
        let path = host.to_str().ok().and_then(|host| url.strip_prefix("http://")?.strip_prefix(host));
        if path.is_none() {
            self.crowd.tally.borrow_mut().protocol_error(sample("the page is elsewhere", &reply));
        }
        path.map(|path| Some(path.to_owned()))
    }

    async fn press(&self, page: &str, button: &str, form: &str) -> Option<()> {
        let call = Call::of_anybody(self.crowd, format!("{page}/{button}")).form(form.to_owned());
        call.until_done().await.map(drop)
    }

    async fn until_settled(&self) -> Option<Shown> {
        let mut patience = Patience::new(self.crowd, Instant::now());
        loop {
            let look = Call::of_customer(self.crowd, self.shopper, format!("/v1/orders/{}", self.won.order)).get();
            let shown = self.read(&look.until_done().await?)?;
            if shown.is_settled() {
                return Some(shown);
            }
            patience.wait(None).await?;
        }
    }

    async fn shop(&self, what: &str) -> Option<Shown> {
        let call = Call::of_shop(self.crowd, format!("/admin/v1/orders/{}/{what}", self.won.order));
        self.read(&call.until_done().await?)
    }

    fn customer(&self, what: &str) -> Call<'_> {
        Call::of_customer(self.crowd, self.shopper, format!("/v1/orders/{}/{what}", self.won.order))
    }

    fn read(&self, reply: &Reply) -> Option<Shown> {
        let shown = serde_json::from_slice(&reply.body);
        shown.map_err(|error| self.crowd.tally.borrow_mut().protocol_error(sample(&error.to_string(), reply))).ok()
    }
}

impl Crowd {
    /// Plans what somebody or the shop does with a won order, some time from now.
    pub(crate) fn plan_ending(&self, shopper: u32, errand: Errand, won: Won, after: Duration) {
        self.shoppers.borrow_mut()[shopper as usize].won = Some(Box::new(won));
        self.plan(Due { at: Instant::now() + after, shopper, errand });
    }
}
