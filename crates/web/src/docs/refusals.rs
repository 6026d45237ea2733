//! The pages of refusals: what the `type` of every problem names. They are the files of `docs/errors/`, compiled in.

use std::fmt::Write as _;

use domain::Refusal;

use super::{escaped, framed, markdown};

/// All refusals, in order of precedence.
pub(super) fn list() -> String {
    let mut body = String::from(
        "<h1>Refusals</h1><p>Every \u{201c}no\u{201d} of the engine, in the order in which they are told: of several reasons that hold at \
         once, the one that stands first. Codes and numbers never change their meaning.</p>\
         <div class=\"wide\" tabindex=\"0\"><table><thead><tr><th>code<th>HTTP<th>number<th>in one sentence</thead><tbody>",
    );
    for refusal in all() {
        let (code, number) = (refusal.code(), refusal as u16);
        let (status, title) = (refusal.status(), escaped(refusal.title()));
        let _ = write!(
            body,
            "<tr><td><a href=\"/docs/errors/{code}\"><code>{code}</code></a><td>{status}<td>{number}<td>{title}"
        );
    }
    body.push_str("</tbody></table></div>");
    framed("Refusals", &body)
}

/// What one refusal means and what to do.
pub(super) fn page(refusal: Refusal) -> String {
    let body = format!("{}<p><a href=\"/docs/errors\">All refusals</a></p>", markdown(text(refusal)));
    framed(refusal.code(), &body)
}

pub(super) fn all() -> impl Iterator<Item = Refusal> {
    Refusal::ALL.into_iter().chain([Refusal::Internal])
}

/// Whoever adds a refusal is told here to write its page.
fn text(refusal: Refusal) -> &'static str {
    macro_rules! page {
        ($code:literal) => {
            include_str!(concat!("../../../../docs/errors/", $code, ".md"))
        };
    }
    match refusal {
        Refusal::Malformed => page!("malformed"),
        Refusal::BodyTooLarge => page!("body_too_large"),
        Refusal::MediaTypeUnsupported => page!("media_type_unsupported"),
        Refusal::QuantityInvalid => page!("quantity_invalid"),
        Refusal::NotFound => page!("not_found"),
        Refusal::MethodNotAllowed => page!("method_not_allowed"),
        Refusal::TokenInvalid => page!("token_invalid"),
        Refusal::TokenExpired => page!("token_expired"),
        Refusal::PassInvalid => page!("pass_invalid"),
        Refusal::PassForeign => page!("pass_foreign"),
        Refusal::RoleInsufficient => page!("role_insufficient"),
        Refusal::TicketInvalid => page!("ticket_invalid"),
        Refusal::OriginRefused => page!("origin_refused"),
        Refusal::NotEligible => page!("not_eligible"),
        Refusal::IdentityUnavailable => page!("identity_unavailable"),
        Refusal::Blocked => page!("blocked"),
        Refusal::RateLimited => page!("rate_limited"),
        Refusal::ChallengeRequired => page!("challenge_required"),
        Refusal::ChallengeFailed => page!("challenge_failed"),
        Refusal::Overloaded => page!("overloaded"),
        Refusal::KeyReused => page!("key_reused"),
        Refusal::NotOpen => page!("not_open"),
        Refusal::Closed => page!("closed"),
        Refusal::Paused => page!("paused"),
        Refusal::StorageFull => page!("storage_full"),
        Refusal::PassExpired => page!("pass_expired"),
        Refusal::BeforeSlot => page!("before_slot"),
        Refusal::PassSpent => page!("pass_spent"),
        Refusal::LimitItemReached => page!("limit_item_reached"),
        Refusal::LimitSaleReached => page!("limit_sale_reached"),
        Refusal::GrantsExhausted => page!("grants_exhausted"),
        Refusal::UnpaidReleases => page!("unpaid_releases"),
        Refusal::CouponRefused => page!("coupon_refused"),
        Refusal::StockInsufficient => page!("stock_insufficient"),
        Refusal::SoldOut => page!("sold_out"),
        Refusal::Interrupted => page!("interrupted"),
        Refusal::OutcomeUnknown => page!("outcome_unknown"),
        Refusal::HoldEnded => page!("hold_ended"),
        Refusal::OrderConfirmed => page!("order_confirmed"),
        Refusal::RefundDue => page!("refund_due"),
        Refusal::PaymentOpen => page!("payment_open"),
        Refusal::PaymentsExhausted => page!("payments_exhausted"),
        Refusal::NothingToRefund => page!("nothing_to_refund"),
        Refusal::SaleExists => page!("sale_exists"),
        Refusal::SaleInvalid => page!("sale_invalid"),
        Refusal::SalePhaseWrong => page!("sale_phase_wrong"),
        Refusal::StockUnavailable => page!("stock_unavailable"),
        Refusal::LastOwner => page!("last_owner"),
        Refusal::HoldOpen => page!("hold_open"),
        Refusal::PictureInvalid => page!("picture_invalid"),
        Refusal::Internal => page!("internal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_page_of_its_own_code_and_stands_in_the_list() {
        let list = list();
        for refusal in all() {
            let code = refusal.code();
            assert!(text(refusal).starts_with(&format!("# `{code}`\n")), "{code}");
            assert!(list.contains(&format!("href=\"/docs/errors/{code}\"")), "{code}");
            let page = page(refusal);
            assert!(page.contains(&format!("<h1><code>{code}</code></h1>")), "{page}");
            assert!(page.contains("<strong>What a client does:</strong>"), "{page}");
        }
    }
}
