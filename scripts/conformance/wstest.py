"""Starts the Autobahn testsuite from the folder it was installed into (the first argument). Python 2.7.

`site.addsitedir` rather than PYTHONPATH, because zope's namespace package is only found through its .pth file.
"""
import site
import sys

site.addsitedir(sys.argv.pop(1))

from autobahntestsuite.wstest import run  # noqa: E402

sys.exit(run())
