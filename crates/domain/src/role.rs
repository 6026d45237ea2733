//! Roles of the admin tokens, and what each of them may do.

use serde::{Deserialize, Serialize};

/// What a request on the admin listener needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Look at sales, orders, parked records and metrics.
    Read,
    /// Create a sale, pause, resume, close and settle it, choose who decides it, change its stock, its human check and what its page shows, and block addresses and customers.
    RunSales,
    /// Say that an order was paid, or take it back.
    EndOrders,
    /// Give out and revoke tokens, and erase customers.
    Manage,
}

/// For whom an admin token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at everything and changes nothing: a dashboard.
    Viewer,
    /// Looks, and runs the sales.
    Operator,
    /// Looks, and says what was paid or taken back: the shop's checkout.
    Cashier,
    /// May do everything. The first token has this role.
    Owner,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Cashier, Self::Owner];

    /// The role's name in the vault, in the HTTP contract and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Cashier => "cashier",
            Self::Owner => "owner",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether the role has that right.
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::Read => true,
            Right::RunSales => matches!(self, Self::Operator | Self::Owner),
            Right::EndOrders => matches!(self, Self::Cashier | Self::Owner),
            Right::Manage => self == Self::Owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Right, Role};

    #[test]
    fn each_role_has_its_rights_and_no_more() {
        let rights = [Right::Read, Right::RunSales, Right::EndOrders, Right::Manage];
        for (role, expected) in [
            (Role::Viewer, [true, false, false, false]),
            (Role::Operator, [true, true, false, false]),
            (Role::Cashier, [true, false, true, false]),
            (Role::Owner, [true; 4]),
        ] {
            assert_eq!(rights.map(|right| role.may(right)), expected, "{role:?}");
            assert_eq!(Role::parse(role.name()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
        assert_eq!(Role::parse("Owner"), None);
    }
}
