"""Makes the pages, figures and notebook that show measurements: `python -m docs.build`.

The text of a page is a template in `templates`, its data come from the module of its
name.
"""

import tuning  # noqa: F401, sets Keras's backend before Keras is imported
