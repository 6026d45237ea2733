// Another hour for everybody who asks `Date`; parsing and arithmetic stay as they are.
{
  const Real = Date;
  const now = () => Real.now() + HOURS * 3600000;
  globalThis.Date = new Proxy(Real, {
    apply: () => new Real(now()).toString(),
    construct: (target, values, caller) => Reflect.construct(target, values.length ? values : [now()], caller),
    get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
  });
  Real.prototype.constructor = globalThis.Date;
}
