import hypothesis
import jaxtyping

with jaxtyping.install_import_hook("gm_envs_tabular", "shapes.checked"):
    import gm_envs_tabular  # noqa: F401

hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("any machine")
