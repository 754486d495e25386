"""A command: its help in the terminal, and options that are given twice."""

import inspect
import re
import textwrap
from collections import Counter

import click

_OPTION = re.compile(r"( --?[a-z-]+) (?!-)")


class Command(click.Command):
    """A command whose example can be copied from the help, and which drops no option that is given twice."""

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 - the first sentence is never cut
        """Return the first sentence of the help."""
        return inspect.cleandoc(self.help or "").partition("\n\n")[0].removesuffix(".")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the help; an example that is longer than a line is continued as in a shell."""
        text, _, example = inspect.cleandoc(self.help or "").partition("\n\nExample: ")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
        formatter.write_paragraph()
        joined = _OPTION.sub("\\1\0", example)  # a line does not end between an option and its value
        lines = textwrap.wrap(
            joined, formatter.width - 6, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        formatter.write("  Example:\n" + textwrap.indent(" \\\n".join(lines).replace("\0", " "), "    ") + "\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; click would drop all values but the last of an option that takes one."""
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            for option, times in Counter(given).items():
                if isinstance(option, click.Option) and times > 1 and not (option.multiple or option.is_flag):
                    raise click.UsageError(f"{option.opts[-1]} is given {times} times; give it once.", ctx)
        return super().parse_args(ctx, args)
