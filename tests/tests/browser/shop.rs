//! A shop with one sale in front of a browser: what the pages' tests do to it, and what they look for on its pages.

use domain::SaleDefinition;
use system_tests::browser::{Context, Page};
use system_tests::paying::sandbox_settings;
use system_tests::{Request, Server, token_of};

use crate::browser;

/// A server with the sandbox's payment pages, and a sale on it.
pub(crate) struct Shop {
    pub(crate) server: Server,
    sale: String,
}

impl Shop {
    pub(crate) fn open(definition: &SaleDefinition) -> Self {
        Self::open_with(definition, &[])
    }

    pub(crate) fn open_with(definition: &SaleDefinition, settings: &[&str]) -> Self {
        let sandbox = sandbox_settings();
        let settings: Vec<_> = sandbox.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        let server = Server::start_with(&settings);
        server.create(definition);
        Self { server, sale: definition.sale.clone() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.public())
    }

    /// The address that a shop sends its customer to.
    pub(crate) fn entrance(&self, customer: &str) -> String {
        self.url(&format!("/sales/{}#token={}", self.sale, token_of(customer)))
    }

    /// A customer's first tab, on the sale's page.
    pub(crate) fn visit(&self, customer: &str) -> (Context, Page) {
        let context = browser().context();
        let page = context.page();
        page.open(&self.entrance(customer));
        (context, page)
    }

    /// How many of the first item are held and sold.
    pub(crate) fn taken(&self) -> [u64; 2] {
        let [_, held, sold, _] = self.server.counts(&self.sale);
        [held, sold]
    }

    /// How often the server has refused with that code.
    pub(crate) fn refused(&self, code: &str) -> u64 {
        let metrics = String::from_utf8(self.server.operate(Request::get("/metrics")).body).unwrap();
        let line = metrics.lines().find(|line| line.starts_with("doorbuster_refusals") && line.contains(code));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

/// Where an item's button is.
pub(crate) const PRESS: &str = "[data-do=press]";
pub(crate) const PAY: &str = "[data-do=pay]";

/// Waits until the first item, or the order, is in that state.
#[track_caller]
pub(crate) fn until_state(page: &Page, state: &str) {
    // Together with what is said, so that a failure tells what there was instead.
    let is_so = format!(
        "(({{ dataset, innerText }}) => dataset.state === '{state}' || [dataset.state, innerText])(document.querySelector('[data-state]'))"
    );
    page.until(&format!("the state {state}"), &is_so);
}

/// Waits until the button can be pressed.
#[track_caller]
pub(crate) fn until_open(page: &Page) {
    page.until("a button that can be pressed", "!document.querySelector('[data-do=press]').disabled");
}
