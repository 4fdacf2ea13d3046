"use strict";
// Every trajectory of a tiny MDP with a softmax policy: exact derivatives, and the expectation of every estimator.
const tiny = (() => {
  const sum = values => values.reduce((total, value) => total + value, 0);
  const add = (left, right, scale = 1) => left.map((value, i) => value + scale * right[i]);
  const product = (matrix, vector) => matrix.map(row => sum(row.map((value, i) => value * vector[i])));
  const norm = vector => Math.sqrt(sum(vector.map(value => value * value)));

  // π(a|s) from logits, which are stored as one vector, θ[s·A + a]
  function policy({reward}, params) {
    const actions = reward[0].length;
    return reward.map((_, s) => {
      const own = params.slice(s * actions, (s + 1) * actions), most = Math.max(...own);
      const powers = own.map(logit => Math.exp(logit - most)), total = sum(powers);
      return powers.map(power => power / total);
    });
  }

  // V_t(s) and Q_t(s, a) for t = T … 0, backwards from V_T = 0; plain loops, because this is done some 100,000 times
  function values({transition, reward, discount, horizon}, pi) {
    const value = [], quality = [], states = reward.length, actions = reward[0].length;
    value[horizon] = new Array(states).fill(0);
    for (let t = horizon - 1; t >= 0; t--) {
      value[t] = new Array(states).fill(0);
      quality[t] = [];
      for (let s = 0; s < states; s++) {
        const row = quality[t][s] = [];
        for (let a = 0; a < actions; a++) {
          let later = 0;
          for (let x = 0; x < states; x++) later += transition[s][a][x] * value[t + 1][x];
          row[a] = reward[s][a] + discount * later;
          value[t][s] += pi[s][a] * row[a];
        }
      }
    }
    return {value, quality};
  }

  // ∇J(θ) = Σ_t γᵗ Σ_s P(s_t = s) π(a|s) (Q_t(s, a) − V_t(s))
  function gradient(mdp, params) {
    const pi = policy(mdp, params), {value, quality} = values(mdp, pi), states = pi.length, actions = pi[0].length;
    const result = new Array(params.length).fill(0);
    let at = new Array(states).fill(0), discount = 1;
    at[mdp.start] = 1;
    for (let t = 0; t < mdp.horizon; t++, discount *= mdp.discount) {
      const next = new Array(states).fill(0);
      for (let s = 0; s < states; s++)
        for (let a = 0; a < actions; a++) {
          const mass = at[s] * pi[s][a];
          result[s * actions + a] += discount * mass * (quality[t][s][a] - value[t][s]);
          for (let x = 0; x < states; x++) next[x] += mass * mdp.transition[s][a][x];
        }
      at = next;
    }
    return result;
  }

  // every (s_0, a_0, …, s_{T−1}, a_{T−1}) with its probability; the state after the last action has no reward
  function trajectories(mdp, pi) {
    let grown = [{probability: 1, steps: [], state: mdp.start}];
    for (let t = 0; t < mdp.horizon; t++) {
      const last = t === mdp.horizon - 1;
      grown = grown.flatMap(({probability, steps, state: s}) => mdp.reward[s].flatMap((reward, a) => {
        const taken = [...steps, {s, a, reward}], chance = probability * pi[s][a];
        return last ? [{probability: chance, steps: taken}] : mdp.transition[s][a].map((p, x) =>
          ({probability: chance * p, steps: taken, state: x})).filter(one => one.probability > 0);
      }));
    }
    return grown;
  }

  // w_t of every estimator: with V as baseline, which all but DiCE have here
  function weights(mdp, steps, value, baseline) {
    const result = [];
    let toGo = 0;
    for (let t = steps.length - 1; t >= 0; t--) {
      toGo += mdp.discount ** t * steps[t].reward;
      result[t] = toGo - (baseline ? mdp.discount ** t * value[t][steps[t].s] : 0);
    }
    return result;
  }

  // which second derivatives of log-probabilities are counted: F_tu at times t and u
  const SECOND = {
    ad: () => 0,
    lvc: (w, t, u) => t === u ? w[t] : 0,
    loaded_dice: (w, t, u) => w[Math.max(t, u)],
    dice: (w, t, u) => w[Math.max(t, u)],
  };
  const BASELINE = {ad: true, lvc: true, loaded_dice: true, dice: false};

  // one trajectory's estimate: gradient Σ w_t ∇ℓ_t and Hessian Σ F_tu ∇ℓ_t ∇ℓ_uᵀ + Σ w_t ∇²ℓ_t
  function estimate(mdp, pi, steps, value, name) {
    const actions = mdp.reward[0].length, size = mdp.reward.length * actions;
    const w = weights(mdp, steps, value, BASELINE[name]);
    const scores = steps.map(({s, a}) => {
      const score = new Array(size).fill(0);
      for (let b = 0; b < actions; b++) score[s * actions + b] = (a === b ? 1 : 0) - pi[s][b];
      return score;
    });
    const first = new Array(size).fill(0), second = first.map(() => new Array(size).fill(0));
    steps.forEach(({s}, t) => {
      for (let i = 0; i < size; i++) first[i] += w[t] * scores[t][i];
      for (let b = 0; b < actions; b++)
        for (let c = 0; c < actions; c++)
          second[s * actions + b][s * actions + c] -= w[t] * pi[s][b] * ((b === c ? 1 : 0) - pi[s][c]);
      steps.forEach((_, u) => {
        const factor = SECOND[name](w, t, u);
        if (factor !== 0)
          for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) second[i][j] += factor * scores[t][i] * scores[u][j];
      });
    });
    return {first, second};
  }

  function mean(all, pick, weight) {
    return all.reduce((total, item, i) => add(total, pick(item), weight(i)), pick(all[0]).map(() => 0));
  }

  // all that does not depend on α: trajectories, the estimates that each gives, and their expectation
  function prepare(mdp, names) {
    const params = mdp.params.flat(), pi = policy(mdp, params), {value} = values(mdp, pi);
    const all = trajectories(mdp, pi), chance = i => all[i].probability;
    const of = Object.fromEntries(names.map(name => {
      const each = all.map(({steps}) => estimate(mdp, pi, steps, value, name));
      const hessian = params.map((_, row) => mean(each, item => item.second[row], chance));
      return [name, {firsts: each.map(item => item.first), hessian}];
    }));
    // what DiCE without a baseline gives on average is exact
    const exact = estimateMean(mdp, pi, all, value);
    return {mdp, params, all, of, exact, ends: new Map()};
  }

  function estimateMean(mdp, pi, all, value) {
    const each = all.map(({steps}) => estimate(mdp, pi, steps, value, "dice")), chance = i => all[i].probability;
    return {gradient: mean(each, item => item.first, chance),
      hessian: pi.flat().map((_, row) => mean(each, item => item.second[row], chance))};
  }

  // E ∇J(φ + α ḡ) over all ways to draw n trajectories, ḡ the mean of their gradients
  function composed({mdp, params, all, of, ends}, name, rate, n) {
    const firsts = of[name].firsts, key = `${BASELINE[name]}, ${rate}, ${n}`;  // one for all with the same gradients
    if (ends.has(key)) return ends.get(key);
    const total = params.map(() => 0);
    const factorial = k => k < 2 ? 1 : k * factorial(k - 1);
    // weight: n! Π p^k / k! so far, for k copies of each trajectory
    function draw(from, left, weight, point) {
      if (left === 0) {
        gradient(mdp, point).forEach((value, i) => { total[i] += weight * value; });
        return;
      }
      if (from === all.length) return;
      for (let copies = 0, power = 1; copies <= left; copies++, power *= all[from].probability / copies)
        draw(from + 1, left - copies, weight * power, copies ? add(point, firsts[from], copies * rate / n) : point);
    }
    draw(0, n, factorial(n), params);
    ends.set(key, total);
    return total;
  }

  // ∇φ J(φ + α ∇J(φ)) = (I + α ∇²J(φ)) ∇J(φ + α ∇J(φ)), and what an estimator is on average in its place
  function metaGradient({mdp, params, exact}, rate) {
    const outer = gradient(mdp, add(params, exact.gradient, rate));
    return add(outer, product(exact.hessian, outer), rate);
  }

  function expectation(prepared, name, rate, n, sampled) {
    const {mdp, params, of, exact} = prepared;
    const outer = sampled.inner ? composed(prepared, name, rate, n)
      : gradient(mdp, add(params, exact.gradient, rate));
    return add(outer, product(sampled.hessian ? of[name].hessian : exact.hessian, outer), rate);
  }

  // ‖E[Ĥ] − ∇²J‖ / ‖∇²J‖, in Frobenius' norm
  function hessianBias({of, exact}, name) {
    const off = of[name].hessian.flatMap((row, i) => add(row, exact.hessian[i], -1));
    return norm(off) / norm(exact.hessian.flat());
  }

  return {add, expectation, gradient, hessianBias, metaGradient, norm, prepare, sum};
})();
if (typeof module !== "undefined") module.exports = tiny;
