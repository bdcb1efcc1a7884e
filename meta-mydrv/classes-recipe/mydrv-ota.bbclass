# SPDX-License-Identifier: MIT
# What the recipes of the update share: the integrator's variables, and the check of the keys. docs/ota.md explains them.

MYDRV_OTA_COMPATIBLE ??= "mydrv-${MACHINE}"
MYDRV_OTA_COMPATIBLE[doc] = "RAUC's compatible string: a device takes only bundles of the same one. Change it when hardware needs other software."

MYDRV_OTA_VERSION ??= "${DISTRO_VERSION}"
MYDRV_OTA_VERSION[doc] = "Version of the system and of its bundle, by semantic versioning (1.2.0); IMAGE_VERSION in os-release."

MYDRV_OTA_MIN_VERSION ??= "${MYDRV_OTA_VERSION}"
MYDRV_OTA_MIN_VERSION[doc] = "The oldest version that a device with this system lets be installed. Default: its own, so that there is no downgrade."

MYDRV_OTA_TRIES ??= "3"
MYDRV_OTA_TRIES[doc] = "How often the boot loader tries a slot that does not become good, 1 to 9."

MYDRV_OTA_RELEASE ??= "0"
MYDRV_OTA_RELEASE[doc] = "\"1\": a release, which development keys (scripts/mydrv-dev-keys) must not sign."

# mydrv_ota_key_errors: what is wrong with these variables, which name key or certificate files, each with its remedy.
def mydrv_ota_key_errors(d, names):
    import os
    import ssl
    errors = []
    for name in names:
        path = d.getVar(name)
        # meta-rauc's default is the name of a file without certificates.
        if not path or not os.path.isabs(path):
            errors.append('%s is not set to the path of a file. For development, scripts/mydrv-dev-keys of meta-mydrv makes keys and prints the lines for local.conf; for '
                          'products see docs/ota.md, "Keys".' % name)
        elif not os.path.isfile(path):
            errors.append('%s = "%s": no such file.' % (name, path))
        elif d.getVar('MYDRV_OTA_RELEASE') == '1' and name != 'RAUC_KEY_FILE':
            with open(path) as certificate:
                # Names are plain text in DER.
                if b'DEVELOPMENT' in ssl.PEM_cert_to_DER_cert(certificate.read()):
                    errors.append('MYDRV_OTA_RELEASE = "1", but %s = "%s" is a development certificate. Sign releases by the product\'s own key.'
                                  % (name, path))
    return errors

def mydrv_ota_require_keys(d, names):
    errors = mydrv_ota_key_errors(d, names.split())
    if errors:
        bb.fatal('No update can be made or trusted:\n' + '\n'.join('  - ' + error for error in errors))
