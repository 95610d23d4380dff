// vars/strongroom.groovy of a shared library: runs a block with a short-lived Strongroom token, and ends it afterwards.
//
//   strongroom(address: 'https://vault.example.com:8470', credentials: 'strongroom-oidc') { sh './deploy.sh' }
//
// `credentials` is an "OpenID Connect id token as file" of the plug-in oidc-provider, whose audience is the trust's. Whoever may edit the job can
// log in as it: bind the trust to the job's URL (`sub`), and let few edit that job. The agent needs the `strongroom` command line.
def call(Map config, Closure body) {
    // Only steps within this block see the directory; other programs that read it find nothing of theirs.
    def home = pwd(tmp: true) + '/strongroom'
    withEnv(["STRONGROOM_ADDR=${config.address}", "XDG_CONFIG_HOME=${home}"]) {
        try {
            withCredentials([file(credentialsId: config.credentials, variable: 'STRONGROOM_JWT_FILE')]) {
                sh '''
                    set -eu
                    umask 077
                    strongroom login jwt - < "$STRONGROOM_JWT_FILE" > /dev/null
                '''
            }
            body()
        } finally {
            sh 'strongroom logout || true; rm -rf "$XDG_CONFIG_HOME"'
        }
    }
}
