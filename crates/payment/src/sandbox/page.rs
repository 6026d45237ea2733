//! The sandbox's page, on which whoever tries the engine out plays the customer. HTML as a function of what it shows: no script, no
//! image, nothing from elsewhere.

use aws_lc_rs::digest;
use data_encoding::BASE64;
use domain::{Currency, Money};

use super::store::{Payment, State};
use crate::limits::SANDBOX_DELAY_SECONDS_MAX;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#16181d;--soft:#5b616e;--paper:#fff;--back:#f3f4f6;--line:#c9cdd5;--main:#1d4ed8;--on:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#eceef2;--soft:#a5acb9;--paper:#1b1e25;--back:#101217;--line:#3c424e;--main:#8ab0ff;--on:#0b1530}}\
*{box-sizing:border-box}\
body{margin:0;padding:16px;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:460px;margin:4vh auto;padding:24px;background:var(--paper);border:1px solid var(--line);border-radius:12px}\
h1{margin:0 0 4px;font-size:32px;line-height:1.2;font-variant-numeric:tabular-nums}\
p{margin:0 0 16px;overflow-wrap:anywhere}.soft{color:var(--soft);font-size:14px}\
.note{padding:10px 14px;border-left:4px solid var(--main);background:var(--back)}\
form{margin:0 0 10px;display:flex;gap:10px;align-items:center}\
button,input,.back{min-height:48px;font:inherit;color:inherit;border-radius:8px;border:1px solid var(--line);background:var(--paper)}\
button{flex:1;padding:8px 16px;text-align:left;cursor:pointer}button.main,.back{background:var(--main);color:var(--on);border-color:var(--main)}\
button.main{font-weight:600}input{width:92px;padding:8px 10px}\
.back{display:block;padding:11px 16px;text-decoration:none;text-align:center;font-weight:600}\
:focus-visible{outline:3px solid var(--main);outline-offset:2px}";

/// What the page may load and do: its own style and nothing else. Where its forms lead is not restricted, because they end at the
/// shop's own address.
pub(crate) fn content_security_policy() -> String {
    let hash = digest::digest(&digest::SHA256, STYLE.as_bytes());
    let style = BASE64.encode(hash.as_ref());
    format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'")
}

/// The page of a payment. `path` is its own path, under which the buttons' actions are; `now` is milliseconds since the Unix epoch.
pub(crate) fn render(payment: &Payment, path: &str, now: u64) -> String {
    let money = money(payment.amount, &payment.currency);
    let body = match payment.state {
        State::Waiting => buttons(path),
        State::Declined => {
            format!("<p class=\"note\" role=\"status\">Declined. The customer may try again.</p>{}", buttons(path))
        }
        State::Processing { due } => {
            let seconds = due.saturating_sub(now).div_ceil(1_000);
            ended(payment, &format!("The bank is working on it. It will be paid in {seconds} seconds."))
        }
        State::Paid if payment.refunded > 0 => {
            let refunded = self::money(payment.refunded, &payment.currency);
            ended(payment, &format!("Paid. {refunded} went back to the customer."))
        }
        State::Paid => ended(payment, "Paid."),
        State::Cancelled => ended(payment, "Cancelled by the shop. It cannot be paid any more."),
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
         <title>Pay {money} (sandbox)</title><style>{STYLE}</style></head><body><main>\
         <p class=\"soft\">Sandbox: no money moves here</p><h1>{money}</h1><p class=\"soft\">Order {}</p>{body}\
         </main></body></html>",
        escaped(&payment.key),
    )
}

/// A page that only says something.
pub(crate) fn render_message(message: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Sandbox</title><style>{STYLE}</style></head>\
         <body><main><p role=\"status\">{}</p></main></body></html>",
        escaped(message)
    )
}

fn buttons(path: &str) -> String {
    let path = escaped(path);
    let button = |action: &str, class: &str, text: &str| {
        format!("<form method=\"post\" action=\"{path}/{action}\"><button{class}>{text}</button></form>")
    };
    [
        button("pay", " class=\"main\"", "Pay"),
        button("decline", "", "Be declined"),
        format!(
            "<form method=\"post\" action=\"{path}/later\"><button>Pay after so many seconds</button>\
             <input name=\"seconds\" type=\"number\" inputmode=\"numeric\" min=\"0\" max=\"{SANDBOX_DELAY_SECONDS_MAX}\" value=\"10\" \
             required aria-label=\"Seconds until it is paid\"></form>"
        ),
        button("twice", "", "Pay, and let the shop hear of it twice"),
        button("never", "", "Leave without paying"),
    ]
    .concat()
}

fn ended(payment: &Payment, note: &str) -> String {
    let back = escaped(&payment.return_url);
    format!("<p class=\"note\" role=\"status\">{note}</p><a class=\"back\" href=\"{back}\">Back to the shop</a>")
}

/// Money as people write it; a currency that is none is shown as it came.
fn money(amount: u64, currency: &str) -> String {
    match Currency::parse(currency) {
        Some(currency) => Money { amount, currency }.plain(),
        None => format!("{amount} {}", escaped(currency)),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{content_security_policy, render, render_message};
    use crate::sandbox::store::{Payment, State};

    fn page(state: State) -> String {
        let payment = Payment {
            reference: "sb_1".to_owned(),
            key: "or_1.0".to_owned(),
            amount: 1_500,
            currency: "EUR".to_owned(),
            return_url: "https://shop.example/done?a=1&b=\"><script>".to_owned(),
            refunded: 0,
            state,
        };
        render(&payment, "/sandbox/payments/sb_1", 1_000)
    }

    #[test]
    fn an_open_payment_has_five_buttons_and_its_price() {
        for state in [State::Waiting, State::Declined] {
            let page = page(state);
            for action in ["pay", "decline", "later", "twice", "never"] {
                assert!(page.contains(&format!("action=\"/sandbox/payments/sb_1/{action}\"")), "{action}: {page}");
            }
            assert!(page.contains("<h1>15.00 EUR</h1>") && page.contains("Order or_1.0"), "{page}");
            assert_eq!(page.contains("Declined"), state == State::Declined);
            assert_eq!(page.matches("<form").count(), 5);
        }
    }

    #[test]
    fn what_has_ended_says_so_and_leads_back() {
        let table = [
            (State::Processing { due: 3_001 }, "in 3 seconds"),
            (State::Paid, "Paid."),
            (State::Cancelled, "cannot be paid"),
        ];
        for (state, told) in table {
            let page = page(state);
            assert!(page.contains(told) && page.contains("Back to the shop"), "{page}");
            assert!(!page.contains("<form"), "{page}");
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_page_and_nothing_is_loaded() {
        for page in [page(State::Paid), render_message("<script>")] {
            assert!(!page.contains("<script"), "{page}");
            for outside in ["src=", "url(", "@import", "<link", "style=\""] {
                assert!(!page.contains(outside), "{outside}: {page}");
            }
            assert!(page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme:dark"));
        }
        assert!(page(State::Paid).contains("a=1&amp;b=&quot;&gt;&lt;script&gt;"));
        assert!(content_security_policy().starts_with("default-src 'none'; style-src 'sha256-"));
    }
}
