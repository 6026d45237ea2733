//! What there is to see: a shop with sales in every state, and another one with colours and a logo of its own.

use domain::{ItemDefinition, SaleDefinition};
use serde_json::json;
use system_tests::paying::{pay, sandbox_settings};
use system_tests::{Customer, Folder, Request, Server, item, sale_of};

const BOOT: &[u8] = include_bytes!("../../../../crates/doorbuster/src/demo/boot.jpg");
const POSTER: &[u8] = include_bytes!("../../../../crates/doorbuster/src/demo/poster.jpg");
const BOOT_SHOWS: &str = "A brown winter boot with red laces and a collar of white fleece, standing in the snow.";
const POSTER_SHOWS: &str = "A framed poster: a mountain under a winter moon, and the word WINTER.";
const LOGO: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" width="164" height="32" viewBox="0 0 164 32"><path d="M4 26 16 6l12 20z"
 fill="#ffd400"/><text x="38" y="23" font-family="sans-serif" font-size="20" font-weight="700" fill="#fff">FELSEN</text></svg>"##;
const LONG_TITLE: &str =
    "Donaudampfschifffahrtskapitänsmützenabzeichen, limited edition, numbered and signed, with the box that it came in";

pub(crate) struct Scene {
    /// Both audit themselves at the end.
    server: Server,
    themed: Server,
    /// The path of an order that is to be paid.
    pub(crate) held: String,
    pub(crate) paid: String,
    pub(crate) given_back: String,
    /// The page of a payment that nobody has made yet.
    pub(crate) payment: String,
    _folder: Folder,
}

impl Scene {
    pub(crate) fn set() -> Self {
        let settings = sandbox_settings();
        let mut settings: Vec<_> = settings.iter().map(String::as_str).collect();
        settings.extend(["pages.shop_name=Nordlicht", "identity.dangerous_guest_tokens=true"]);
        let server = Server::start_with(&settings);
        sell(&server);
        let [held, paid, given_back, payment] = buy(&server);
        let folder = Folder::new();
        let themed = themed(&folder);
        Self { server, themed, held, paid, given_back, payment, _folder: folder }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.public())
    }

    pub(crate) fn themed_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.themed.public())
    }
}

/// The sales, in the order of their making.
fn sell(server: &Server) {
    create(server, entitled("many", "Everything has to go", (1..=12).map(numbered).collect()));
    create(server, entitled("closed", "Autumn drop", vec![boot(40)]));
    create(server, entitled("paused", "Morning drop", vec![poster(4)]));
    create(server, entitled("last", "Last pairs", vec![boot(1)]));
    create(server, entitled("rare", "Rare prints", vec![poster(1)]));
    let mut winter = entitled("winter", "Winter drop", vec![boot(20), poster(3), scarf()]);
    winter.limit_per_customer = 4;
    create(server, winter);
    // Nearly everybody has to wait for their slot.
    let turn = entitled("turn", "Noon drop", vec![poster(4)]);
    create(server, SaleDefinition { spread_milliseconds: 3_000_000, ..turn });
    let mut night = entitled("night", "Night drop", vec![boot(100)]);
    (night.opens_at, night.closes_at) = (night.opens_at.plus(3_723_000), night.closes_at.plus(7_200_000));
    create(server, night);
    create(server, entitled("evening", "Evening drop", vec![poster(6)]));
    let check = Request::new("PUT", "/admin/v1/sales/evening/human-check").json(&json!({ "human_check": "answer" }));
    server.operate(check).is(200, "");
    server.turn("paused", "pause").is(200, "");
    server.turn("closed", "close").is(200, "");
}

/// What became of the people: the paths of an order that is held, of one that is paid and of one that was given back, and the address of a
/// payment.
fn buy(server: &Server) -> [String; 4] {
    let order =
        |customer: &Customer, item: &str| customer.buy(item, &format!("key-{item}")).is(201, "held").text("order");
    let (bert, clara) = (server.customer("bert", "winter"), server.customer("clara", "winter"));
    let [held, paid, given_back] = [order(&bert, "boot"), order(&clara, "boot"), order(&clara, "scarf")];
    server.confirm(&paid).is(200, "confirmed");
    clara.cancel(&given_back).is(200, "released");
    let last = order(&server.customer("clara", "last"), "boot");
    server.confirm(&last).is(200, "confirmed");
    let rare = server.customer("bert", "rare");
    let payment = pay(&rare, &order(&rare, "poster")).is(201, "").text("pay_url");
    let path = |order: &str| format!("/orders/{order}");
    [path(&held), path(&paid), path(&given_back), payment]
}

fn themed(folder: &Folder) -> Server {
    let logo = folder.join("logo.svg");
    std::fs::write(&logo, LOGO).expect("the folder is writable");
    let logo = format!("pages.logo={}", logo.display());
    let colours = ["pages.button_colour=#ffd400", "pages.bar_colour=#6b0f1a"];
    let server = Server::start_with(&[&["pages.shop_name=Felsen", &logo], &colours[..]].concat());
    let mut badge = ItemDefinition { title: LONG_TITLE.to_owned(), price: 1_234_500, ..item("badge", 9) };
    badge.limit_per_customer = 1;
    let rehearsal = entitled("rehearsal", "Rehearsal for the drop of the mountain shop", vec![boot(9), badge]);
    create(&server, SaleDefinition { test: true, ..rehearsal });
    server
}

fn entitled(name: &str, title: &str, items: Vec<ItemDefinition>) -> SaleDefinition {
    SaleDefinition { title: title.to_owned(), ..sale_of(name, items) }
}

fn boot(stock: u32) -> ItemDefinition {
    ItemDefinition { title: "Winter boot".to_owned(), price: 8_900, limit_per_customer: 2, ..item("boot", stock) }
}

fn poster(stock: u32) -> ItemDefinition {
    ItemDefinition { title: "Winter poster".to_owned(), price: 1_900, limit_per_customer: 1, ..item("poster", stock) }
}

fn scarf() -> ItemDefinition {
    ItemDefinition { title: "Scarf, undyed wool".to_owned(), price: 3_400, limit_per_customer: 2, ..item("scarf", 50) }
}

fn numbered(number: u64) -> ItemDefinition {
    let name = if number.is_multiple_of(3) { format!("poster-{number}") } else { format!("boot-{number}") };
    let title = format!("{} no. {number}", if number.is_multiple_of(3) { "Poster" } else { "Boot" });
    ItemDefinition { title, price: 1_900 * number, limit_per_customer: 1, ..item(&name, 5) }
}

/// Creates the sale, with a picture and its words beside everything that has one.
fn create(server: &Server, definition: SaleDefinition) {
    server.create(&definition);
    let mut descriptions = serde_json::Map::new();
    for ItemDefinition { item, .. } in &definition.items {
        let (picture, shows) = match item.split('-').next() {
            Some("boot") => (BOOT, BOOT_SHOWS),
            Some("poster") => (POSTER, POSTER_SHOWS),
            _ => continue,
        };
        let path = format!("/admin/v1/sales/{}/items/{item}/picture", definition.sale);
        server.operate(Request::new("PUT", &path).body(picture)).is(200, "");
        descriptions.insert(item.clone(), shows.into());
    }
    let showcase = json!({ "origins": [], "button": {}, "descriptions": descriptions });
    let path = format!("/admin/v1/sales/{}/showcase", definition.sale);
    server.operate(Request::new("PUT", &path).json(&showcase)).is(200, "");
}
