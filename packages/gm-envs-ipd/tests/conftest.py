import hypothesis
import jaxtyping
import pytest
import torch

with jaxtyping.install_import_hook("gm_envs_ipd", "shapes.checked"):
    import gm_envs_ipd  # noqa: F401

hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("any machine")

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param
