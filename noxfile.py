"""The checks, each in an environment of its own: `nox` runs all but the slow ones, `nox -s lint` one of them."""

import nox

nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.default_venv_backend = "venv"

#: Style, spelling, and the order of the rooms.
LINTS = (["ruff", "check"], ["ruff", "format", "--check"], ["codespell"], ["lint-imports"])


def install(session: nox.Session, *what: str) -> None:
    """Install into the session's environment; `nox --no-venv` uses the one that is active."""
    if session.venv_backend != "none":
        session.install(*what)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, spelling and imports."""
    install(session, "-e", ".[lint]")
    for command in LINTS:
        session.run(*command)


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "-e", ".[lint,test]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "-e", ".[docs]")
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the tests, but for the slow ones; arguments go to pytest."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "pytest", "-n0", "-m", "slow", *session.posargs)


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest releases that pyproject.toml admits."""
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution", "lowest-direct", "-e", ".[test]")
    # The newest releases of other packages deprecate what the oldest of ours call.
    session.run("python", "-m", "pytest", "-W", "ignore::DeprecationWarning", *session.posargs)
