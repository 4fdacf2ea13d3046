"""`decompose` on a problem of this package's own, against automatic differentiation of the K-step objective."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import PERMUTATIONS, Sizes, decompose, exact_meta_gradient, load
from gm_estimators.debias import Jackknife, Levels
from gm_estimators.decomposition import ROLES, ExactObjective, sampled_path

F64 = torch.float64


def _load(name):
    """A file beside this one as a module."""
    spec = importlib.util.spec_from_file_location(f"gm_estimators_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


toy = _load("toy_problem")
ALPHA = 0.2
NAMES = ["ad", "loaded_dice", "dice"]
SIZES = [2, Sizes(6, 3, 4), Sizes(3, 3, 5, shared=True)]
STEPS = {"inner_lr": ALPHA}


@pytest.mark.parametrize(("case", "inner_steps"), [("maml", 1), ("phi", 2), ("both", 3)])
def test_every_permutation_and_size_is_what_automatic_differentiation_gives(case, inner_steps):
    problem = toy.Toy(case)
    terms = {"inner_steps": inner_steps, **STEPS}
    found = decompose(problem, map(load, NAMES), sizes=SIZES, **terms)
    assert set(found) == {(name, p, size) for name in NAMES for p in PERMUTATIONS for size in SIZES}
    for (name, permutation, size), estimate in found.items():
        sizes = Sizes.each(size) if isinstance(size, int) else size
        expected = toy.by_autograd(problem, load(name), permutation, sizes, **terms)
        assert_close(estimate, expected, rtol=1e-11, atol=1e-11, msg=f"{name} {permutation} {size}")
    exact = toy.by_autograd(problem, load("ad"), "EEE", Sizes.each(1), **terms)
    assert_close(exact_meta_gradient(problem, **terms), exact, rtol=0, atol=1e-12)


def test_what_differs_in_a_role_or_a_size_has_other_numbers():
    """The control of the test above: no two sizes, nor two permutations, have an estimate in common."""
    found = decompose(toy.Toy(), [load("dice")], sizes=SIZES, inner_steps=2, **STEPS)
    for permutation in PERMUTATIONS:
        own = torch.stack([found["dice", permutation, size] for size in SIZES]).flatten(1)
        apart = torch.cdist(own, own) > 1e-4
        same = [[_read(a, permutation) == _read(b, permutation) for b in SIZES] for a in SIZES]
        assert torch.equal(apart, ~torch.tensor(same))
    for size in SIZES:
        every = torch.stack([found["dice", permutation, size] for permutation in PERMUTATIONS]).flatten(1)
        assert (torch.cdist(every, every) + torch.eye(7)).min() > 1e-4


def _read(size, permutation):
    """The trajectories that the sampled roles read."""
    size = Sizes.each(size) if isinstance(size, int) else size
    source = {"inner": "inner", "hessian": "inner" if size.shared else "hessian", "outer": "outer"}
    return [(source[role], size.of(role)) for role, letter in zip(ROLES, permutation, strict=True) if letter == "S"]


@pytest.mark.parametrize(
    ("case", "inner_steps", "name"), [("maml", 1, "ad+correction"), ("both", 2, "dice+correction@0.7")]
)
def test_the_correction_is_that_of_every_inner_step(case, inner_steps, name):
    problem, terms = toy.Toy(case), {"inner_steps": inner_steps, **STEPS}
    for size in (Sizes(6, 2, 3), Sizes.each(3, shared=True)):
        found = decompose(problem, [load(name)], sizes=[size], **terms)
        plain = decompose(problem, [replace(load(name), correction=0.0)], sizes=[size], **terms)
        for permutation in PERMUTATIONS:
            expected = toy.by_autograd(problem, load(name), permutation, size, **terms)
            assert_close(found[name, permutation, size], expected, rtol=1e-11, atol=1e-11, msg=permutation)
            apart = (found[name, permutation, size] - plain[name, permutation, size]).abs().max()
            assert (apart > 1e-3) == (permutation[:2] == "SS")


@pytest.mark.parametrize("kind", ["Toy", "Splitting"])
@pytest.mark.parametrize(
    ("blocks", "size"), [(2, 4), (3, Sizes(12, 6, 3)), (2, Sizes(4, 4, 8, shared=True))], ids=["each", "own", "shared"]
)
def test_the_jackknife_takes_the_numbers_of_each_role_in_parts(kind, blocks, size):
    problem, sizes = getattr(toy, kind)("phi"), Sizes.each(size) if isinstance(size, int) else size
    plain, terms = load("lvc"), {"inner_steps": 2, **STEPS}
    found = decompose(problem, [load(f"lvc+jackknife{blocks}")], sizes=[size], **terms)
    assert set(found) == {(f"lvc+jackknife{blocks}", permutation, size) for permutation in PERMUTATIONS}
    by_role = {role: Jackknife(blocks).terms(sizes.of(role)) for role in ROLES}
    if sizes.shared:
        by_role["hessian"] = by_role["inner"]
    for (_, permutation, _), estimate in found.items():
        expected = 0
        for i, (weight, parts) in enumerate(by_role["inner"]):
            numbers = [{role: by_role[role][i].parts[j] for role in ROLES} for j in range(len(parts))]
            values = [_of_part(problem, plain, permutation, each, sizes, terms) for each in numbers]
            expected = expected + weight * torch.stack(values).mean(0)
        assert_close(estimate, expected, rtol=1e-11, atol=1e-11, msg=permutation)


def _of_part(problem, estimator, permutation, numbers, sizes, terms):
    if not sizes.shared:
        return toy.by_autograd(problem, estimator, permutation, numbers, **terms)
    # II reads the trajectories of I
    shared = toy.Toy("phi")
    shared.numbers = lambda role, step: problem.numbers("inner" if role == "hessian" else role, step)
    return toy.by_autograd(shared, estimator, permutation, numbers, **terms)


def test_a_level_takes_the_numbers_of_its_parts():
    """Its first term has the smallest parts: what is drawn at θ⁰ is the whole sample all the same."""
    problem, terms = toy.Toy("phi"), {"inner_steps": 2, **STEPS}
    level = Levels(base=1).at(1)
    estimator = replace(load("lvc"), name="level", debias=level)
    found = decompose(problem, [estimator], permutations=["SSS", "ESE"], sizes=[2], **terms)
    for permutation in ("SSS", "ESE"):
        expected = 0
        for weight, parts in level.terms(2):
            values = [
                toy.by_autograd(problem, load("lvc"), permutation, dict.fromkeys(ROLES, part), **terms)
                for part in parts
            ]
            expected = expected + weight * torch.stack(values).mean(0)
        assert_close(found["level", permutation, 2], expected, rtol=1e-11, atol=1e-11)
    assert problem.draws[0] == (0, {"inner": 2, "hessian": 2})


def test_an_exact_objective_is_what_is_known_of_its_policy():
    matrix = torch.tensor([[2.0, 1.0], [0.5, -1.0]], dtype=F64)

    class Known:
        value, gradient = torch.tensor(2.0), torch.tensor([1.0, -1.0])

        def hessian_vector_product(self, vector):
            return vector @ matrix.T

    found = ExactObjective(Known())
    assert (found.value, found.gradient.tolist(), found.meta_gradient) == (2.0, [1.0, -1.0], None)
    product, mixed = found.vjp(torch.eye(2, dtype=F64))
    assert_close(product, matrix.T)
    assert mixed is None


def test_only_what_is_asked_for_is_drawn_and_once():
    """K = 2: an exact path of three points and two sampled ones that share the first."""
    problem = toy.Toy()
    names = ["ad", "lvc", "loaded_dice"]
    decompose(problem, map(load, names), sizes=[Sizes(4, 2, 3), Sizes(2, 5, 1)], inner_steps=2, **STEPS)
    assert len(problem.points) == 3 + 2 * 2
    expected = [
        (0, {"inner": 4, "hessian": 5}),
        (1, {"hessian": 5}),
        (2, {"outer": 3}),
        (1, {"inner": 4, "hessian": 2}),
        (2, {"outer": 3}),
        (1, {"inner": 2, "hessian": 5}),
        (2, {"outer": 1}),
    ]
    assert sorted(problem.draws, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize(
    ("permutations", "size", "draws"),
    [
        (["SEE"], 3, [(0, {"inner": 3})]),
        (["EES"], 3, [(1, {"outer": 3})]),
        (["ESE"], Sizes(3, 2, 4), [(0, {"hessian": 2})]),
        (["ESE"], Sizes.each(3, shared=True), [(0, {"inner": 3})]),
        (["SSS"], Sizes.each(3, shared=True), [(0, {"inner": 3}), (1, {"outer": 3})]),
        (["SEE", "ESE", "EES"], Sizes(3, 2, 4), [(0, {"inner": 3, "hessian": 2}), (1, {"outer": 4})]),
    ],
    ids=str,
)
def test_a_role_that_is_exact_is_not_drawn(permutations, size, draws):
    problem = toy.Toy()
    decompose(problem, [load("lvc")], permutations=permutations, sizes=[size], inner_steps=1, **STEPS)
    assert sorted(problem.draws, key=str) == draws


@pytest.mark.parametrize("shared", [False, True])
def test_kept_paths_have_what_each_role_was_estimated_from(shared):
    problem, size = toy.Toy(), Sizes(4, 4 if shared else 2, 3, shared)
    chosen, terms = [load("ad"), load("lvc"), load("dice")], {"inner_steps": 2, **STEPS}
    found = decompose(problem, chosen, sizes=[size], keep_paths=True, **terms)
    assert set(found.paths) == {(e.name, letter, size) for e in chosen for letter in "SE"}
    for estimator in chosen:
        path = found.paths[estimator.name, "S", size]
        alone = sampled_path(problem, estimator, size, **terms)
        for theta, other in zip(path.params, alone.params, strict=True):
            assert_close(theta, other, rtol=0, atol=1e-13)
        assert len(path.hessian[estimator.name]) == 2
        for step, objective in enumerate(path.hessian[estimator.name]):
            role = "inner" if shared else "hessian"
            drawn = problem.played(role, step, path.params[step], slice(size.hessian))
            expected = problem.at(path.params[step]).sampled("hessian", estimator, drawn)
            assert_close(objective.gradient, expected.gradient, rtol=0, atol=1e-13)
        drawn = problem.played("outer", 2, path.params[2], slice(3))
        expected = problem.at(path.params[2]).sampled("outer", estimator, drawn)
        assert_close(path.outer.gradient, expected.gradient, rtol=0, atol=1e-13)
    jackknifed = decompose(problem, [load("lvc+jackknife")], sizes=[4], keep_paths=True, **terms)
    whole = jackknifed.paths["lvc+jackknife", "S", 4]
    for theta, other in zip(whole.params, sampled_path(problem, load("lvc"), 4, **terms).params, strict=True):
        assert_close(theta, other, rtol=0, atol=1e-13)


def test_sizes_are_those_of_their_roles():
    assert [Sizes(1, 2, 3).of(role) for role in ROLES] == [1, 2, 3]
    assert Sizes.each(2) == Sizes(2, 2, 2)
    assert Sizes.each(2, shared=True) == Sizes(2, 2, 2, shared=True)
